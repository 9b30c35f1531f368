"""Region proposals at inference: the network's own arithmetic, with only what is needed decoded."""

from __future__ import annotations

import torch
from torch import Tensor

from segcli.models.inference.trunk import TrunkOutput
from segcli.models.rpn import ProposalNetwork, best_anchors, by_cell, select_proposals


class Proposer:
    """From objectness and deltas to proposals (Ren et al. 2015, section 3.3).

    Gives what the network's `ProposalNetwork` gives. That decodes all of some 250,000 anchors and makes them anew for
    every picture; here the best are taken first, and anchors are kept for the last input sizes.

    Args:
        rpn: anchors, box coder, counts, thresholds and conventions are taken from it.
    """

    def __init__(self, rpn: ProposalNetwork) -> None:
        self._anchor_generator = rpn.anchor_generator
        self._decode = rpn.box_coder.decode_single
        self._numerics = rpn.numerics
        self._before = rpn._pre_nms_top_n["testing"]
        self._after = rpn._post_nms_top_n["testing"]
        self._overlap = rpn.nms_thresh

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
        anchors = self._anchor_generator.kept_per_level(padded, found.logits)
        logits = [by_cell(level, 1) for level in found.logits]
        deltas = [by_cell(level, 4) for level in found.deltas]
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
        parts = []
        for number, (level, delta, anchor) in enumerate(zip(logits, deltas, anchors, strict=True)):
            scores, rows = best_anchors(level, self._before, self._numerics)
            boxes = self._decode(delta[rows], anchor[rows])
            parts.append((boxes, scores, torch.full_like(rows, number)))
        boxes, scores, levels = (torch.cat(part) for part in zip(*parts, strict=True))
        limits = {"overlap": self._overlap, "most": self._after}
        return select_proposals(boxes, scores, levels, size, self._numerics, **limits)[0]
