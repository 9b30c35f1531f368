"""Pasting: torchvision's rule bit for bit, and the pixel-centre rule against a direct evaluation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image

from segcli.models.conventions import Postprocess
from segcli.models.paste import Crop, paste_crops

SIZE = (40, 50)
BOXES = torch.tensor(
    [
        [3.2, 4.7, 30.9, 33.3],
        [-8.5, -3.0, 12.0, 9.4],
        [44.1, 35.6, 70.0, 60.0],
        [10.0, 10.0, 10.4, 10.3],  # less than a pixel
        [0.0, 0.0, 50.0, 40.0],
        [60.0, 50.0, 70.0, 60.0],  # outside
    ]
)
TRUNCATED = Postprocess()
CENTRES = Postprocess(mask_paste="pixel_centres", mask_inclusive=True)


def _masks(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 1, 5, 5, generator=generator)
    return torch.nn.functional.interpolate(coarse, (28, 28), mode="bicubic").clamp(0, 1)[:, 0]


def _full(crop: Crop) -> Tensor:
    values, (x, y) = crop
    out = torch.zeros(SIZE, dtype=torch.bool)
    out[y : y + values.shape[0], x : x + values.shape[1]] = values
    return out


def test_no_masks_give_no_crops() -> None:
    """An empty picture stays empty."""
    assert list(paste_crops(torch.zeros(0, 28, 28), torch.zeros(0, 4), SIZE, TRUNCATED)) == []


def test_truncated_boxes_equal_torchvision_bit_for_bit() -> None:
    """Boxes inside, over every edge, of less than a pixel, and outside."""
    masks = _masks(len(BOXES))
    inside = BOXES[:5]  # torchvision's loop cannot take a box wholly outside
    expected = paste_masks_in_image(masks[:5, None], inside, SIZE)[:, 0] > 0.5
    found = torch.stack([_full(c) for c in paste_crops(masks[:5], inside, SIZE, TRUNCATED)])
    assert torch.equal(found, expected)


@pytest.mark.parametrize("rule", [TRUNCATED, CENTRES], ids=["truncated_box", "pixel_centres"])
def test_a_box_outside_gives_an_empty_crop(rule: Postprocess) -> None:
    """Nothing is pasted, and nothing fails."""
    values, _ = next(paste_crops(_masks(1), BOXES[5:], SIZE, rule))
    assert values.numel() == 0


@pytest.mark.parametrize("inclusive", [True, False])
def test_a_probability_of_exactly_one_half(inclusive: bool) -> None:
    """detectron2 and mmdetection count it, torchvision does not."""
    rule = Postprocess(mask_paste="pixel_centres", mask_inclusive=inclusive)
    mask = torch.full((1, 4, 4), 0.5)
    values, _ = next(paste_crops(mask, torch.tensor([[8.0, 8.0, 16.0, 16.0]]), SIZE, rule))
    assert bool(values.any()) is inclusive


def test_pixel_centres_read_the_mask_at_each_pixels_centre() -> None:
    """Compared with a bilinear look-up written out in float64."""
    masks = _masks(len(BOXES))
    for mask, box, crop in zip(masks, BOXES, paste_crops(masks, BOXES, SIZE, CENTRES), strict=True):
        soft = _look_up(mask.double().numpy(), box.double().numpy())
        clear = np.abs(soft - 0.5) > 1e-4  # where rounding cannot matter
        assert np.array_equal(_full(crop).numpy()[clear], (soft >= 0.5)[clear])


def _look_up(mask: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Bilinear values of the mask at all pixel centres, zero beyond its outermost cells' neighbours."""
    side = mask.shape[0]
    padded = np.pad(mask, 1)
    out = np.zeros(SIZE)
    for row in range(SIZE[0]):
        for column in range(SIZE[1]):
            v = (row + 0.5 - box[1]) / (box[3] - box[1]) * side - 0.5
            u = (column + 0.5 - box[0]) / (box[2] - box[0]) * side - 0.5
            if not (-1 < u < side and -1 < v < side):
                continue
            i, j = int(np.floor(v)), int(np.floor(u))
            a, b = v - i, u - j
            window = padded[i + 1 : i + 3, j + 1 : j + 3]
            out[row, column] = (np.array([1 - a, a]) @ window @ np.array([1 - b, b])).item()
    return out
