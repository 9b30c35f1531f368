"""What the mask head should say for each sampled RoI.

A training object carries its mask as one small patch: the mask under its tight box, averaged down (or up) to
`PATCH` × `PATCH` cells, with a rim of zeros. A picture with hundreds of objects then costs kilobytes, whatever its
size.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import roi_align as torchvision_roi_align

PATCH = 56
RIM = 1


def mask_targets(
    patches: Tensor, boxes: Tensor, rois: Tensor, matched: Tensor, size: int, *, aligned: bool
) -> Tensor:
    """Resample each RoI's object into the RoI's frame.

    Args:
        patches: uint8 (G, PATCH + 2·RIM, PATCH + 2·RIM), coverage of each cell, 255 = full.
        boxes: float32 (G, 4), xyxy: the tight box that the patch (without rim) covers.
        rois: float32 (P, 4), xyxy, same frame as `boxes`.
        matched: int64 (P,), which object each RoI belongs to.
        size: side of the target, 28.
        aligned: as in RoIAlign. Without it torchvision's targets look half a pixel further to the right and bottom
            (torchvision/models/detection/roi_heads.py, `project_masks_on_boxes`), and so do ours.

    Returns:
        float32 (P, size, size), 0..1.
    """
    if len(rois) == 0:
        return rois.new_zeros((0, size, size))
    owner = boxes[matched]
    row = torch.arange(len(rois), device=rois.device)
    extent = (owner[:, 2:] - owner[:, :2]).clamp(min=1e-3)
    shift = 0.0 if aligned else 0.5
    low = (rois[:, :2] + shift - owner[:, :2]) / extent * PATCH + RIM
    high = (rois[:, 2:] + shift - owner[:, :2]) / extent * PATCH + RIM
    table = torch.cat((row[:, None].to(low), low, high), dim=1)
    planes = (
        patches[matched][:, None].float() / 255.0
    )  # those of the RoIs alone, not of all objects
    sampled: Tensor = torchvision_roi_align(planes, table, (size, size), 1.0, 2, True)
    return sampled[:, 0]
