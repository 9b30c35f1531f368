"""Region proposals with shapes that never depend on what is found: for GPUs, which nothing then waits for."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.rpn import RegionProposalNetwork

from segcli.models.inference.nms import suppress
from segcli.models.inference.ranking import ranked, rows_at
from segcli.models.inference.trunk import TrunkOutput


class StaticProposer(nn.Module):
    """From objectness and deltas to proposals: what `segcli.models.inference.proposals.Proposer` gives, in fixed slots.

    Args:
        rpn: anchors, box coder, counts and thresholds are taken from it.
    """

    def __init__(self, rpn: RegionProposalNetwork) -> None:
        super().__init__()
        self._decode = rpn.box_coder.decode_single
        self._before = rpn._pre_nms_top_n["testing"]
        self._after = rpn._post_nms_top_n["testing"]
        self._overlap, self._least, self._side = rpn.nms_thresh, rpn.score_thresh, rpn.min_size
        for level, cell in enumerate(rpn.anchor_generator.cell_anchors):
            self.register_buffer(f"cell{level}", cell.float().clone(), persistent=False)

    def forward(
        self, found: TrunkOutput, padded: tuple[int, int], sizes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Proposals of each picture, best first.

        Args:
            found: of the trunk.
            padded: (H, W) of the network's input.
            sizes: float32 (N, 2), (h, w) of each picture's valid area.

        Returns:
            Boxes float32 (N, R, 4), xyxy in input pixels, and bool (N, R): false in slots that are empty. R is as many
            as the network keeps, or all anchors where they are fewer.
        """
        levels = [
            self._level(i, logits, deltas, padded, sizes)
            for i, (logits, deltas) in enumerate(zip(found.logits, found.deltas, strict=True))
        ]
        boxes, scores, valid = (_padded(parts) for parts in zip(*levels, strict=True))
        N, L, K = valid.shape
        # each level's best come sorted by logit, so by score too
        kept = suppress(boxes.flatten(0, 1), valid.flatten(0, 1), self._overlap).view(N, L * K)
        count = min(self._after, sum(level[2].shape[1] for level in levels))
        columns, _, filled = ranked(scores.view(N, L * K), kept, count)
        return rows_at(boxes.view(N, L * K, 4), columns), filled

    def _level(
        self, level: int, logits: Tensor, deltas: Tensor, padded: tuple[int, int], sizes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The best of one level: boxes (N, K, 4), scores (N, K), and which of them are valid."""
        N, _, height, width = logits.shape
        by_cell = logits.permute(0, 2, 3, 1).reshape(N, -1)
        best, rows = by_cell.topk(min(self._before, by_cell.shape[1]), dim=1)
        strides = (padded[0] // height, padded[1] // width)
        anchors = _anchors(getattr(self, f"cell{level}"), rows, width, strides)
        own = rows_at(deltas.permute(0, 2, 3, 1).reshape(N, -1, 4), rows)
        decoded = self._decode(own.reshape(-1, 4), anchors.reshape(-1, 4)).view(N, -1, 4)
        boxes = clipped(decoded, sizes)
        scores = torch.sigmoid(best)
        return boxes, scores, not_small(boxes, self._side) & (scores >= self._least)


def _anchors(cell: Tensor, rows: Tensor, width: int, strides: tuple[int, int]) -> Tensor:
    """Anchors by number: torchvision's order, cells row by row, the anchors of a cell together.

    Only those that are asked for, so no table of all of them (4 MB for an input of 800 × 1344) is kept for a shape.

    Args:
        cell: float32 (A, 4), around the origin.
        rows: int64 (N, K).
        width: cells in a row of the level.
        strides: pixels between cells, (y, x).

    Returns:
        float32 (N, K, 4), exact: all are whole numbers.
    """
    place = rows.div(len(cell), rounding_mode="floor")
    y = place.div(width, rounding_mode="floor")
    x = place - y * width
    shift = torch.stack((x * strides[1], y * strides[0]), 2).to(cell.dtype)
    return torch.cat((shift, shift), 2) + cell[rows - place * len(cell)]


def clipped(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Boxes (N, K, 4) cut to the valid areas (h, w) of their pictures, float32 (N, 2)."""
    corner = sizes.flip(1).repeat(1, 2)[:, None]  # (N, 1, 4): w, h, w, h
    return torch.minimum(boxes.clamp(min=0), corner)


def not_small(boxes: Tensor, side: float) -> Tensor:
    """Whether boxes (N, K, 4) have no side below `side` pixels; bool (N, K)."""
    wide = boxes[:, :, 2] - boxes[:, :, 0] >= side
    return wide & (boxes[:, :, 3] - boxes[:, :, 1] >= side)


def _padded(parts: tuple[Tensor, ...]) -> Tensor:
    """Per level (N, K_l, …) as one (N, L, K, …), zeros behind the shorter ones."""
    K = max(part.shape[1] for part in parts)
    return torch.stack(
        [F.pad(p, (0, 0) * (p.dim() - 2) + (0, K - p.shape[1])) for p in parts], dim=1
    )
