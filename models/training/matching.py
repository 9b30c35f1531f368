"""Which object each anchor or proposal belongs to, by overlap (Ren et al. 2015, section 3.1.2).

What torchvision's `Matcher` gives, a few objects at a time: 2,000 objects and 268,000 anchors would be a matrix of
2 GB.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from segcli.models.training.sampling import BACKGROUND, FOREGROUND, IGNORED

_PAIRS = {"cpu": 1 << 19}  # at a time: a few such matrices fit into a processor's cache
_PAIRS_ELSEWHERE = 1 << 26


@dataclass(frozen=True)
class Thresholds:
    """Overlaps that decide.

    Attributes:
        high: from here on foreground.
        low: below it background; between the two neither.
        best_too: what overlaps an object more than all others do is foreground even below `low`.
    """

    high: float
    low: float
    best_too: bool


def match(candidates: Tensor, objects: Tensor, thresholds: Thresholds) -> tuple[Tensor, Tensor]:
    """Give each candidate its object.

    Args:
        candidates: float32 (M, 4), xyxy.
        objects: float32 (G, 4), xyxy, same frame.
        thresholds: what the overlap says.

    Returns:
        int64 (M,), the object that it overlaps most, 0 where there is none at all; and int8 (M,): `FOREGROUND`,
        `BACKGROUND` or `IGNORED`. An object that nothing overlaps makes nothing foreground (torchvision's `Matcher`
        would take every candidate for its best).
    """
    M, G = len(candidates), len(objects)
    best = candidates.new_full((M,), -1.0)
    owner = torch.zeros(M, dtype=torch.int64, device=candidates.device)
    chosen = torch.zeros(M, dtype=torch.bool, device=candidates.device)
    if M == 0 or G == 0:
        return owner, torch.full_like(owner, BACKGROUND, dtype=torch.int8)
    columns = candidates.t().contiguous()
    step = max(1, _PAIRS.get(candidates.device.type, _PAIRS_ELSEWHERE) // M)
    for start in range(0, G, step):
        overlaps = pairwise_iou(objects[start : start + step], columns)
        if thresholds.best_too:
            most = overlaps.amax(1, keepdim=True)
            chosen |= (overlaps == most.masked_fill(most <= 0, torch.inf)).any(0)
        highest, row = overlaps.max(0)
        better = (
            highest > best
        )  # of equal ones the first object, as a maximum over all would have it
        owner = torch.where(better, row + start, owner)
        best = torch.maximum(best, highest)
    return owner, _kinds(best, chosen, thresholds)


def left_alone(
    kinds: Tensor, candidates: Tensor, others: Tensor | None, thresholds: Thresholds
) -> Tensor:
    """Take for neither what is background only because some objects are not looked at.

    Args:
        kinds: int8 (M,), of `match` with the objects that are looked at.
        candidates: float32 (M, 4), xyxy.
        others: float32 (I, 4), xyxy, same frame: the objects that are not; None = there are none.
        thresholds: as for the objects that are.

    Returns:
        int8 (M,); foreground stays foreground.
    """
    if others is None:
        return kinds
    _, near = match(candidates, others, thresholds)
    return kinds.masked_fill((kinds == BACKGROUND) & (near != BACKGROUND), IGNORED)


def _kinds(best: Tensor, chosen: Tensor, thresholds: Thresholds) -> Tensor:
    foreground = (best >= thresholds.high) | chosen
    kinds = torch.full_like(best, IGNORED, dtype=torch.int8)
    kinds.masked_fill_(best < thresholds.low, BACKGROUND)
    return kinds.masked_fill_(foreground, FOREGROUND)


def pairwise_iou(objects: Tensor, columns: Tensor) -> Tensor:
    """Intersection over union, rounded as in `torchvision.ops.box_iou`.

    Args:
        objects: float32 (G, 4), xyxy.
        columns: float32 (4, M): x1, y1, x2 and y2 of M boxes.

    Returns:
        float32 (G, M).
    """
    x1, y1, x2, y2 = objects.t()[:, :, None]
    X1, Y1, X2, Y2 = columns
    inside = torch.minimum(x2, X2).sub_(torch.maximum(x1, X1)).clamp_(min=0)
    inside *= torch.minimum(y2, Y2).sub_(torch.maximum(y1, Y1)).clamp_(min=0)
    union = ((x2 - x1) * (y2 - y1) + (X2 - X1) * (Y2 - Y1)).sub_(inside)
    return inside.div_(union)
