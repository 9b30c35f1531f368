"""Box arithmetic in which the families differ: decoding of deltas, small boxes, non-maximum suppression by class."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import batched_nms as torchvision_batched_nms
from torchvision.ops import clip_boxes_to_image, nms

from segcli.models.conventions import NmsMode, Numerics

_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
_STDS = (0.1, 0.1, 0.2, 0.2)
_LARGEST_STEP = math.log(1000.0 / 16)  # of dw and dh
_OFFSET_BOXES = 10_000  # mmcv/ops/nms.py, `split_thr`


class DeltaCoder(BoxCoder):  # type: ignore[misc]  # torchvision has no types
    """torchvision's coder, decoding by the conventions; what it encodes for training is torchvision's.

    Args:
        numerics: how deltas are scaled and limited, and where a box has its centre.
        scaled: deltas of the box head are scaled, those of the RPN are not.
    """

    def __init__(self, numerics: Numerics, *, scaled: bool) -> None:
        super().__init__(weights=_WEIGHTS if scaled else (1.0, 1.0, 1.0, 1.0))
        self.numerics = numerics
        self.scaled = scaled

    def decode_single(self, rel_codes: Tensor, boxes: Tensor) -> Tensor:
        """Boxes moved and stretched by deltas.

        Args:
            rel_codes: float32 (N, 4 · G): dx, dy, dw, dh of G groups.
            boxes: float32 (N, 4), xyxy.

        Returns:
            float32 (N, 4 · G), xyxy.

        Source: torchvision/models/detection/_utils.py, `BoxCoder.decode_single`; detectron2/modeling/
        box_regression.py, `Box2BoxTransform.apply_deltas`; mmdet/models/task_modules/coders/
        delta_xywh_bbox_coder.py, `delta2bbox`.
        """
        boxes = boxes.to(rel_codes.dtype)
        widths, heights = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
        x, y = self._centres(boxes, widths, heights)
        dx, dy, dw, dh = (self._unscaled(rel_codes[:, i::4], i) for i in range(4))
        lowest = -_LARGEST_STEP if self.numerics.delta_clamp_low else None
        dw, dh = dw.clamp(lowest, _LARGEST_STEP), dh.clamp(lowest, _LARGEST_STEP)
        new_x, new_y = dx * widths[:, None] + x[:, None], dy * heights[:, None] + y[:, None]
        half_w = 0.5 * (torch.exp(dw) * widths[:, None])
        half_h = 0.5 * (torch.exp(dh) * heights[:, None])
        corners = (new_x - half_w, new_y - half_h, new_x + half_w, new_y + half_h)
        return torch.stack(corners, 2).flatten(1)

    def _centres(self, boxes: Tensor, widths: Tensor, heights: Tensor) -> tuple[Tensor, Tensor]:
        if self.numerics.box_centre == "mean_of_corners":
            return (boxes[:, 0] + boxes[:, 2]) * 0.5, (boxes[:, 1] + boxes[:, 3]) * 0.5
        return boxes[:, 0] + 0.5 * widths, boxes[:, 1] + 0.5 * heights

    def _unscaled(self, deltas: Tensor, column: int) -> Tensor:
        if not self.scaled:
            return deltas  # a division by 1 changes nothing
        if self.numerics.delta_form == "multiply_stds":
            return deltas * _STDS[column]
        return deltas / _WEIGHTS[column]


def clipped(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes (N, 4) cut to a picture of (h, w) pixels."""
    found: Tensor = clip_boxes_to_image(boxes, size)
    return found


def wide_enough(boxes: Tensor, side: float, *, inclusive: bool = True) -> Tensor:
    """Which boxes (N, 4) are at least `side` pixels wide and high, or more than that: bool (N,). NaN is neither."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return ((sides >= side) if inclusive else (sides > side)).all(1)


def batched_nms(
    boxes: Tensor, scores: Tensor, groups: Tensor, overlap: float, mode: NmsMode
) -> Tensor:
    """Rows that remain when each box, from the best on, removes those of its own group that overlap it by more.

    Args:
        boxes: float32 (N, 4), xyxy, not negative.
        scores: float32 (N,), of any range.
        groups: int64 (N,), not negative: classes or levels.
        overlap: intersection over union, exclusive.
        mode: how groups are kept apart, see `Numerics`.

    Returns:
        int64 rows, best first; equal scores in the order in which they stand, but for `by_size`, where torchvision
        leaves their order open.

    Source: torchvision/ops/boxes.py, `batched_nms`; mmcv/ops/nms.py, `batched_nms`.
    """
    kept: Tensor
    if mode == "by_size":
        kept = torchvision_batched_nms(boxes, scores, groups, overlap)
    elif mode == "per_class" or len(boxes) >= _OFFSET_BOXES or len(boxes) == 0:
        kept = nms_by_class(boxes, scores, groups, overlap)
    else:
        kept = nms(boxes + (groups.to(boxes) * (boxes.max() + 1))[:, None], scores, overlap)
    return kept


def nms_by_class(boxes: Tensor, scores: Tensor, labels: Tensor, overlap: float) -> Tensor:
    """Rows that are kept, best first; exact, where offsets shift boxes by class and round them."""
    order = scores.sort(descending=True, stable=True)[1]
    keep = torch.zeros_like(scores, dtype=torch.bool)
    for label in torch.unique(labels):
        rows = torch.where(labels == label)[0]
        keep[rows[nms(boxes[rows], scores[rows], overlap)]] = True
    return order[keep[order]]
