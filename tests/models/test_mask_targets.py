"""Mask targets from patches, against RoIAlign over the full mask."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.models.detection.roi_heads import project_masks_on_boxes
from torchvision.ops import roi_align

from segcli.data.patches import coverage_patch
from segcli.models.mask_targets import PATCH, RIM, mask_targets


def _ellipse(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    inside = ((y + 0.5) / height - 0.5) ** 2 + ((x + 0.5) / width - 0.5) ** 2 <= 0.25
    inside[height // 2, : width // 3] = False  # a slit, so that it is not symmetric
    return inside


def test_no_rois() -> None:
    """No positive RoI, no target."""
    none = mask_targets(
        torch.zeros(0, PATCH + 2, PATCH + 2, dtype=torch.uint8), torch.zeros(0, 4),
        torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), 28, aligned=True,
    )  # fmt: skip
    assert none.shape == (0, 28, 28)


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (56, 56), (90, 41)], ids=str)
def test_a_patch_holds_the_masks_share_of_every_cell(shape: tuple[int, int]) -> None:
    """The mean of the patch is the share of the box that the mask fills, up to rounding to 1/255."""
    crop = _ellipse(*shape)
    patch = coverage_patch(crop)
    assert patch.dtype == np.uint8
    assert not patch[0].any()
    assert not patch[:, -1].any()
    assert patch[RIM:-RIM, RIM:-RIM].mean() / 255 == pytest.approx(crop.mean(), abs=2e-3)


@pytest.mark.parametrize("aligned", [True, False], ids=["aligned", "legacy"])
def test_targets_equal_pooling_of_the_full_mask(aligned: bool) -> None:
    """For RoIs on and off the object the patch gives what RoIAlign over the picture gives, within a grey level."""
    mask = np.zeros((120, 140), bool)
    mask[20:76, 30:86] = _ellipse(56, 56)  # one cell of the patch per pixel
    patch = torch.from_numpy(coverage_patch(mask[20:76, 30:86]))[None]
    owner = torch.tensor([[30.0, 20.0, 86.0, 76.0]])
    rois = torch.tensor(
        [[30.0, 20, 86, 76], [20, 10, 70, 90], [50, 40, 110, 100], [0, 0, 140, 120]]
    )
    matched = torch.zeros(len(rois), dtype=torch.int64)
    found = mask_targets(patch, owner, rois, matched, 28, aligned=aligned)
    full = torch.from_numpy(mask)[None].float()
    if aligned:
        table = torch.cat((matched[:, None].float(), rois), 1)
        expected = roi_align(full[:, None], table, (28, 28), 1.0, 2, True)[:, 0]
    else:
        expected = project_masks_on_boxes(full, rois, matched, 28)
    # torchvision samples adaptively, ours twice per bin and axis: single cells on the rim may differ
    assert (found - expected).abs().mean() < 0.01
    assert ((found > 0.5) != (expected > 0.5)).float().mean() < 0.02


def test_each_roi_gets_its_own_object() -> None:
    """`matched` chooses the object, also where several RoIs share one."""
    full = torch.full((1, PATCH + 2, PATCH + 2), 255, dtype=torch.uint8)
    patches = torch.cat((torch.zeros_like(full), full))
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 40, 40]])
    rois = torch.tensor([[20.0, 20, 40, 40], [0, 0, 10, 10], [22, 22, 38, 38]])
    found = mask_targets(patches, boxes, rois, torch.tensor([1, 0, 1]), 28, aligned=True)
    assert found[:, 5:-5, 5:-5].amin(dim=(1, 2)).tolist() == [1.0, 0.0, 1.0]
