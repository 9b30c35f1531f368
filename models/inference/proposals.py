"""Region proposals at inference: torchvision's arithmetic, with only what is needed decoded."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import boxes as box_ops
from torchvision.ops import nms

from segcli.models.inference.trunk import TrunkOutput

_KEPT_SHAPES = 64  # sets of anchors; one is 4 MB for an input of 800 × 1344


class Proposer:
    """From objectness and deltas to proposals (Ren et al. 2015, section 3.3).

    Gives what torchvision's `RegionProposalNetwork` gives. That decodes all of some 250,000 anchors and makes them anew
    for every picture; here the best are taken first, and anchors are kept per input size.

    Args:
        rpn: anchors, box coder, counts and thresholds are taken from it.
    """

    def __init__(self, rpn: RegionProposalNetwork) -> None:
        self._anchor_generator = rpn.anchor_generator
        self._decode = rpn.box_coder.decode_single
        self._before = rpn._pre_nms_top_n["testing"]
        self._after = rpn._post_nms_top_n["testing"]
        self._overlap, self._least, self._side = rpn.nms_thresh, rpn.score_thresh, rpn.min_size
        self._anchors: dict[tuple[object, ...], list[Tensor]] = {}

    def __call__(
        self, found: TrunkOutput, padded: tuple[int, int], sizes: list[tuple[int, int]]
    ) -> list[Tensor]:
        """Proposals of each picture, best first.

        Args:
            found: of the trunk.
            padded: (H, W) of the network's input.
            sizes: per picture, (h, w) of its valid area.

        Returns:
            Per picture float32 (R_i, 4), xyxy in input pixels.
        """
        anchors = self._anchors_of(found, padded)
        logits = [_by_cell(level, 1) for level in found.logits]
        deltas = [_by_cell(level, 4) for level in found.deltas]
        return [
            self._of_picture(
                [level[i, :, 0] for level in logits], [d[i] for d in deltas], anchors, size
            )
            for i, size in enumerate(sizes)
        ]

    def _of_picture(
        self,
        logits: list[Tensor],
        deltas: list[Tensor],
        anchors: list[Tensor],
        size: tuple[int, int],
    ) -> Tensor:
        boxes, scores, ends = [], [], [0]
        for level, delta, anchor in zip(logits, deltas, anchors, strict=True):
            best, rows = level.topk(min(self._before, len(level)))
            decoded = self._decode(delta[rows], anchor[rows])
            decoded = box_ops.clip_boxes_to_image(decoded, size)
            score = torch.sigmoid(best)
            wide = (decoded[:, 2:] - decoded[:, :2] >= self._side).all(1)
            used = torch.where(wide & (score >= self._least))[0]
            decoded, score = decoded[used], score[used]
            kept = nms(decoded, score, self._overlap)
            boxes.append(decoded[kept])
            scores.append(score[kept])
            ends.append(ends[-1] + len(kept))
        # of equal scores the earlier level first, as a stable sort over all levels would have it
        order = torch.cat(scores).sort(descending=True, stable=True)[1]
        return torch.cat(boxes)[order[: self._after]]

    def _anchors_of(self, found: TrunkOutput, padded: tuple[int, int]) -> list[Tensor]:
        """Anchors per level, (cells · A, 4)."""
        shapes = tuple(tuple(level.shape[-2:]) for level in found.logits)
        key = (padded, shapes, found.logits[0].device)
        if key not in self._anchors:
            if len(self._anchors) >= _KEPT_SHAPES:
                self._anchors.clear()
            images = ImageList(found.logits[0].new_empty((1, 0, *padded)), [padded])
            everything = self._anchor_generator(images, found.logits)[0]
            counts = [level.shape[1] * level.shape[2] * level.shape[3] for level in found.logits]
            self._anchors[key] = list(everything.split(counts))
        return self._anchors[key]


def _by_cell(level: Tensor, values: int) -> Tensor:
    """(N, A · values, H, W) as (N, H · W · A, values): no copy where the level lies channels last."""
    return level.permute(0, 2, 3, 1).reshape(len(level), -1, values)
