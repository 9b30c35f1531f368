"""Two sets of boxes or detections paired one to one, and what the pairs differ by."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from segcli.masks import Masks

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]
Detected = tuple[Floats, Floats, Ints]
"""Boxes (N, 4), scores (N,), labels (N,)."""
BOX, SCORE = 1e-2, 2e-4  # of equal outputs: pixels of the picture, and probability
_LEAST = 0.05


class Matched(NamedTuple):
    """Detections paired.

    Attributes:
        pairs: rows of both sides.
        unmatched: of both sides, without one whose score is at the threshold or at the last one kept.
        boxes: largest difference of a coordinate in pixels.
        scores: largest difference.
    """

    pairs: list[tuple[int, int]]
    unmatched: int
    boxes: float
    scores: float


def apart(ours: Tensor, theirs: Floats) -> float:
    """Largest absolute difference; infinite where shapes differ."""
    if tuple(ours.shape) != theirs.shape:
        return float("inf")
    return float(np.abs(ours.numpy() - theirs).max(initial=0))


def match_boxes(ours: Floats, theirs: Floats, within: float) -> tuple[Ints, Ints]:
    """Rows of boxes (N, 4) and (M, 4) that lie within some pixels of each other, each used once."""
    apart = np.abs(ours[:, None].astype(np.float64) - theirs[None]).max(2, initial=0)
    return _pairs(apart, apart <= within)


def match_detections(ours: Detected, theirs: Detected) -> Matched:
    """Detections paired by label, box and score; the tolerances are those of equal outputs."""
    same = ours[2][:, None] == theirs[2][None]
    boxes = np.abs(ours[0][:, None].astype(np.float64) - theirs[0][None]).max(2, initial=0)
    scores = np.abs(ours[1][:, None].astype(np.float64) - theirs[1][None])
    left, right = _pairs(boxes + scores, same & (boxes <= BOX) & (scores <= SCORE))
    alone = [*np.delete(ours[1], left), *np.delete(theirs[1], right)]
    edges = [_LEAST, *(float(side[1].min()) for side in (ours, theirs) if len(side[1]))]
    at_edge = sum(min(abs(float(s) - edge) for edge in edges) <= SCORE for s in alone)
    return Matched(
        list(zip(left.tolist(), right.tolist(), strict=True)),
        len(alone) - min(at_edge, 2),  # one may be lost, and another come in its place
        float(boxes[left, right].max(initial=0)),
        float(scores[left, right].max(initial=0)),
    )


def worst_mask(ours: Masks, theirs: Masks, pair: tuple[int, int]) -> tuple[int, float]:
    """Pixels in which two masks differ, and their intersection over union (1 where both are empty)."""
    a, b = ours.full(pair[0]), theirs.full(pair[1])
    union = int((a | b).sum())
    return int((a != b).sum()), (int((a & b).sum()) / union if union else 1.0)


def _pairs(cost: Floats, allowed: NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """Greedily the nearest first."""
    rows, columns = np.nonzero(allowed)
    order = np.argsort(cost[rows, columns], kind="stable")
    used_rows, used_columns, left, right = set(), set(), [], []
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if row not in used_rows and column not in used_columns:
            used_rows.add(row)
            used_columns.add(column)
            left.append(row)
            right.append(column)
    return np.array(left, np.int64), np.array(right, np.int64)
