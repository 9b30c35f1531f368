"""Losses as sums and counts, so that several processes can divide by what all of them have."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LOSSES = (
    "loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class LossSums:
    """The losses of one batch.

    Attributes:
        sums: by name (`LOSSES`), float32 0-d, differentiable.
        counts: by name, float32 0-d, what the sum is divided by: anchors, RoIs, or mask RoIs.
    """

    sums: dict[str, Tensor]
    counts: dict[str, Tensor]

    def means(self, counts: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Each sum by its count, 0 where there is nothing to count.

        Args:
            counts: by name; None = this batch's own. The gradients of several processes add up to that of all their
                pictures where each divides by the sum of their counts.
        """
        chosen = self.counts if counts is None else counts
        return {name: total / chosen[name].clamp(min=1.0) for name, total in self.sums.items()}

    def stacked_counts(self) -> Tensor:
        """All counts as one float32 (5,), in the order of `LOSSES`: one all-reduce for all."""
        return torch.stack([self.counts[name] for name in LOSSES])

    @staticmethod
    def named(stacked: Tensor) -> dict[str, Tensor]:
        """What `stacked_counts` stacked, by name."""
        return dict(zip(LOSSES, stacked.unbind(), strict=True))
