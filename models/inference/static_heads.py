"""From class logits and box deltas to detections, in shapes that never depend on what is found."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from segcli.models.inference.nms import suppress
from segcli.models.inference.ranking import first_of, ranked, rows_at
from segcli.models.inference.static_proposals import clipped, not_small
from segcli.models.roi_heads import RoIHeads

_SMALLEST = 1e-2  # pixels; torchvision's `postprocess_detections`
CANDIDATES = 2048


class Slots(NamedTuple):
    """Detections of N pictures in D slots each, the filled ones first, best first.

    Attributes:
        boxes: float32 (N, D, 4), xyxy in input pixels.
        scores: float32 (N, D); −1 in empty slots.
        labels: int64 (N, D), from 1; 0 in empty slots.
        filled: bool (N, D).
        short: bool (N,): more candidates than could be looked at passed the score, and too few of them remained to
            fill all slots; there may be detections that are missing.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    filled: Tensor
    short: Tensor


class StaticSelector:
    """What `segcli.models.inference.heads.BoxSelector` gives, in fixed slots.

    torchvision looks at every pair of proposal and class whose score passes the threshold: up to 90,000 of them. Here
    are the `candidates` best of a picture. Whether a candidate remains depends on better ones alone, so those that
    remain of the best are the first of those that remain of all. The result is the same wherever all candidates fit,
    or those that fit fill all slots; where neither is so, `Slots.short` says it.

    Args:
        heads: box coder and thresholds are taken from it.
        candidates: how many pairs are looked at per picture.
    """

    def __init__(self, heads: RoIHeads, candidates: int = CANDIDATES) -> None:
        self._decode = heads.rules.coder.decode_single
        self._overlap = heads.nms_thresh
        self._candidates = candidates

    def __call__(
        self,
        logits: Tensor,
        deltas: Tensor,
        proposals: Tensor,
        valid: Tensor,
        sizes: Tensor,
        *,
        score: float,
        most: int,
    ) -> Slots:
        """Of all pictures.

        Args:
            logits: float32 (N, R, K + 1).
            deltas: float32 (N, R, (K + 1) · 4).
            proposals: float32 (N, R, 4).
            valid: bool (N, R): which proposals there are.
            sizes: float32 (N, 2), (h, w) of the valid areas.
            score: lowest score, exclusive.
            most: slots; as many as there are pairs where those are fewer.
        """
        scores = F.softmax(logits, -1)[:, :, 1:]
        N, R, classes = scores.shape
        passed = (scores > score) & valid[:, :, None]
        most = min(most, R * classes)
        count = min(max(self._candidates, most), R * classes)
        pairs, best, filled = ranked(scores.flatten(1), passed.flatten(1), count)
        rows = pairs.div(classes, rounding_mode="floor")
        labels = pairs - rows * classes + 1
        own = rows_at(deltas.reshape(N, -1, 4), rows * (classes + 1) + labels)
        near = rows_at(proposals, rows)
        decoded = self._decode(own.reshape(-1, 4), near.reshape(-1, 4)).view(N, -1, 4)
        boxes = clipped(decoded, sizes)
        kept = suppress(boxes, filled & not_small(boxes, _SMALLEST), self._overlap, labels)
        columns, taken = first_of(kept, most)
        short = (passed.flatten(1).sum(1) > count) & ~taken[:, -1]
        return Slots(
            rows_at(boxes, columns),
            torch.where(taken, best.gather(1, columns), -1.0),
            torch.where(taken, labels.gather(1, columns), 0),
            taken,
            short,
        )
