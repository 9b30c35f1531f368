"""Where pasted masks lie in their picture, all objects at once: the pixels each covers, and the mask's cells there.

Both rules of pasting (`conventions.Postprocess.mask_paste`) look at one bilinear surface: the mask with a rim of zeros
around it, (M + 2, M + 2), flat beyond. They differ in where the centre of a picture's pixel falls on it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from segcli.models.conventions import MaskPaste

FARTHEST = 2**24  # pixels from the picture's origin; beyond, float32 cannot tell pixels apart


@dataclass(frozen=True)
class Axis:
    """One axis of N boxes; every tensor is (N,).

    Attributes:
        start: int64, first pixel of the picture that is looked at.
        end: int64, the one behind the last; equal to `start` for a box that has no pixel.
        origin: what the rule's own arithmetic subtracts from a pixel: int64 for `truncated_box`, float32 else.
        length: what it divides by: pixels that the grown box has (int64), or the box's length (float32).
        scale: float64, cells of the surface per pixel …
        shift: float64, … and the cell at pixel 0: pixel p has its centre at `p * scale + shift` cells.
    """

    start: Tensor
    end: Tensor
    origin: Tensor
    length: Tensor
    scale: Tensor
    shift: Tensor


def place(boxes: Tensor, side: int, size: tuple[int, int], rule: MaskPaste) -> tuple[Axis, Axis]:
    """The x and the y axis of all boxes.

    Args:
        boxes: float32 (N, 4), xyxy in pixels of the picture.
        side: M, cells of a mask along one side.
        size: (H, W) of the picture.
        rule: where pixels fall.

    Returns:
        Axes, with no pixel at all (both axes) for a box that is not finite, reaches farther than `FARTHEST`, lies
        outside the picture, or has no extent by its rule.
    """
    make = _truncated if rule == "truncated_box" else _centred
    axes = [make(boxes[:, i], boxes[:, i + 2], side, size[1 - i]) for i in (0, 1)]
    (x, seen_x), (y, seen_y) = axes
    seen = seen_x & seen_y
    return _only(x, seen), _only(y, seen)


def _only(axis: Axis, seen: Tensor) -> Axis:
    none = torch.zeros_like(axis.start)
    return Axis(
        torch.where(seen, axis.start, none), torch.where(seen, axis.end, none),
        axis.origin, axis.length, axis.scale, axis.shift,
    )  # fmt: skip


def _truncated(low: Tensor, high: Tensor, side: int, size: int) -> tuple[Axis, Tensor]:
    """The box grown by the rim, cut to whole pixels, the surface resized into it.

    Source: torchvision/models/detection/roi_heads.py, `expand_boxes` and `paste_mask_in_image`.
    """
    half = (high - low) * 0.5 * ((side + 2) / side)
    centre = (high + low) * 0.5
    first, last = centre - half, centre + half
    known = (first.abs() < FARTHEST) & (last.abs() < FARTHEST)  # NaN is not
    none = torch.zeros_like(low)
    origin = torch.where(known, first, none).to(torch.int64)
    last_pixel = torch.where(known, last, none).to(torch.int64)
    start, end = origin.clamp(min=0), (last_pixel + 1).clamp(max=size)
    length = (last_pixel - origin + 1).clamp(min=1)
    # the operator's own scale, rounded to float32 as there
    scale = (torch.full_like(low, side + 2) / length.to(torch.float32)).to(torch.float64)
    axis = Axis(start, end, origin, length, scale, scale * (0.5 - origin) - 0.5)
    return axis, known & (end > start)


def _centred(low: Tensor, high: Tensor, side: int, size: int) -> tuple[Axis, Tensor]:
    """The box as it is, the surface read at the centres of the picture's pixels.

    Source: detectron2/layers/mask_ops.py, `_do_paste_mask`.
    """
    length = high - low
    known = (low.abs() < FARTHEST) & (high.abs() < FARTHEST) & (length > 0)
    none = torch.zeros_like(low)
    start = (torch.where(known, low, none).to(torch.int64) - 1).clamp(min=0)
    end = (torch.where(known, high, none).to(torch.int64) + 2).clamp(max=size)
    scale = side / torch.where(known, length, none + 1).to(torch.float64)
    shift = scale * (0.5 - torch.where(known, low, none).to(torch.float64)) + 0.5
    return Axis(start, end, low, length, scale, shift), known & (end > start)
