"""Proposals for training: the best anchors are taken before anything is decoded, and no gradient goes through them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from segcli.models.boxes import clipped, wide_enough
from segcli.models.conventions import Numerics
from segcli.models.inference.nms import suppress
from segcli.models.inference.ranking import ranked, rows_at
from segcli.models.rpn import best_anchors, by_cell, select_proposals


@dataclass(frozen=True, eq=False)
class Proposals:
    """Of one picture.

    Attributes:
        boxes: float32 (R, 4), xyxy in input pixels.
        valid: bool (R,); on a CPU all are.
    """

    boxes: Tensor
    valid: Tensor


@torch.no_grad()
def propose(
    rpn: Any,
    numerics: Numerics,
    logits: list[Tensor],
    deltas: list[Tensor],
    anchors: list[Tensor],
    sizes: list[tuple[int, int]],
) -> list[Proposals]:
    """Proposals of each picture.

    Args:
        rpn: counts, thresholds and box coder are taken from it.
        numerics: what is ranked, dropped and suppressed, and how.
        logits: per level float32 (N, A, h, w).
        deltas: per level float32 (N, 4 · A, h, w).
        anchors: per level float32 (h · w · A, 4), see `PyramidAnchors.kept_per_level`.
        sizes: per picture, (h, w) of its valid area.
    """
    flat = [by_cell(level, 1)[:, :, 0] for level in logits]
    moves = [by_cell(level, 4) for level in deltas]
    find = _in_slots if logits[0].is_cuda else _as_many_as_there_are
    return [
        find(rpn, numerics, [f[i] for f in flat], [m[i] for m in moves], anchors, size)
        for i, size in enumerate(sizes)
    ]


def _best(
    rpn: Any,
    numerics: Numerics,
    logits: list[Tensor],
    deltas: list[Tensor],
    anchors: list[Tensor],
) -> list[tuple[Tensor, Tensor]]:
    """Per level the boxes (K, 4) and scores (K,) of the best anchors, not clipped."""
    count, found = rpn._pre_nms_top_n["training"], []
    for level, moves, places in zip(logits, deltas, anchors, strict=True):
        scores, rows = best_anchors(level, count, numerics)
        found.append((rpn.box_coder.decode_single(moves[rows], places[rows]), scores))
    return found


def _as_many_as_there_are(
    rpn: Any, numerics: Numerics, logits: Any, deltas: Any, anchors: Any, size: tuple[int, int]
) -> Proposals:
    found = _best(rpn, numerics, logits, deltas, anchors)
    levels = [torch.full((len(s),), i, device=s.device) for i, (_, s) in enumerate(found)]
    boxes, _ = select_proposals(
        torch.cat([b for b, _ in found]), torch.cat([s for _, s in found]), torch.cat(levels),
        size, numerics, overlap=rpn.nms_thresh, most=rpn._post_nms_top_n["training"],
    )  # fmt: skip
    return Proposals(boxes, torch.ones(len(boxes), dtype=torch.bool, device=boxes.device))


def _in_slots(
    rpn: Any, numerics: Numerics, logits: Any, deltas: Any, anchors: Any, size: tuple[int, int]
) -> Proposals:
    """The same without waiting for the GPU; levels are always kept apart exactly."""
    found = _best(rpn, numerics, logits, deltas, anchors)
    K = max(len(scores) for _, scores in found)
    boxes = torch.stack([_filled(b, K) for b, _ in found])  # (L, K, 4)
    scores = torch.stack([_filled(s, K) for _, s in found])
    there = torch.stack([_filled(torch.ones_like(s, dtype=torch.bool), K) for _, s in found])
    if numerics.drop_non_finite:
        there &= boxes.isfinite().all(2) & scores.isfinite()
    flat = clipped(boxes.view(-1, 4), size)
    wide = wide_enough(flat, numerics.rpn_min_size, inclusive=numerics.rpn_min_inclusive)
    boxes, there = flat.view(boxes.shape), there & wide.view(there.shape)
    kept = suppress(boxes, there, rpn.nms_thresh).view(1, -1)
    # `ranked` wants scores that are not negative
    order = scores if numerics.rpn_rank != "logit" else torch.sigmoid(scores)
    count = min(rpn._post_nms_top_n["training"], kept.shape[1])
    columns, _, filled = ranked(order.reshape(1, -1), kept, count)
    return Proposals(rows_at(boxes.view(1, -1, 4), columns)[0], filled[0])


def _filled(rows: Tensor, count: int) -> Tensor:
    """(K, …) with zeros behind it to (count, …)."""
    return torch.cat((rows, rows.new_zeros((count - len(rows), *rows.shape[1:]))))
