"""From mask probabilities inside boxes to masks at original resolution, one crop per object, no full-size canvas."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from segcli.models.conventions import Postprocess

Crop = tuple[Tensor, tuple[int, int]]


def paste_crops(
    masks: Tensor, boxes: Tensor, size: tuple[int, int], conventions: Postprocess
) -> Iterator[Crop]:
    """Resample each mask to the pixels of its picture and threshold it there.

    Args:
        masks: float32 (N, M, M), probabilities.
        boxes: float32 (N, 4), xyxy in pixels of the original picture.
        size: (H, W) of the original picture.
        conventions: which paste rule, and whether 0.5 counts.

    Yields:
        per object: bool (h, w), and (x, y) of its top-left pixel; the mask is empty outside the crop.
    """
    paste = _truncated_box if conventions.mask_paste == "truncated_box" else _pixel_centres
    for mask, box in zip(masks.float().cpu(), boxes.float().cpu(), strict=True):
        values, origin = paste(mask, box, size)
        yield (values >= 0.5 if conventions.mask_inclusive else values > 0.5), origin


def _truncated_box(mask: Tensor, box: Tensor, size: tuple[int, int]) -> Crop:
    """Resize the mask into the box cut to whole pixels, both first grown by a rim of zeros: torchvision's rule.

    Source: torchvision/models/detection/roi_heads.py, `paste_mask_in_image`.
    """
    side = mask.shape[-1]
    padded = F.pad(mask, (1, 1, 1, 1))
    half = (box[2:] - box[:2]) * 0.5 * ((side + 2) / side)
    centre = (box[2:] + box[:2]) * 0.5
    x0, y0, x1, y1 = torch.cat((centre - half, centre + half)).to(torch.int64).tolist()
    height, width = max(y1 - y0 + 1, 1), max(x1 - x0 + 1, 1)
    left, right = max(x0, 0), min(x1 + 1, size[1])
    top, bottom = max(y0, 0), min(y1 + 1, size[0])
    if right <= left or bottom <= top:
        return mask.new_zeros((0, 0)), (0, 0)
    resized = F.interpolate(
        padded[None, None], (height, width), mode="bilinear", align_corners=False
    )
    return resized[0, 0, top - y0 : bottom - y0, left - x0 : right - x0], (left, top)


def _pixel_centres(mask: Tensor, box: Tensor, size: tuple[int, int]) -> Crop:
    """Sample the mask at the centres of the picture's pixels: detectron2's and mmdetection's rule.

    Source: detectron2/layers/mask_ops.py.
    """
    x0, y0, x1, y1 = box.tolist()
    left, right = max(int(x0) - 1, 0), min(int(x1) + 2, size[1])
    top, bottom = max(int(y0) - 1, 0), min(int(y1) + 2, size[0])
    if right <= left or bottom <= top or x1 <= x0 or y1 <= y0:
        return mask.new_zeros((0, 0)), (0, 0)
    xs = (torch.arange(left, right, dtype=torch.float32) + 0.5 - box[0]) / (box[2] - box[0]) * 2 - 1
    ys = (torch.arange(top, bottom, dtype=torch.float32) + 0.5 - box[1]) / (box[3] - box[1]) * 2 - 1
    grid = torch.stack((xs[None, :].expand(len(ys), -1), ys[:, None].expand(-1, len(xs))), dim=2)
    values = F.grid_sample(mask[None, None], grid[None], align_corners=False)
    return values[0, 0], (left, top)
