"""Where a run stands."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Progress:
    """Stored in every checkpoint; what is random depends on it and the seed alone.

    Attributes:
        epoch: epochs finished.
        batch: batches of the next epoch that are done.
        step: optimiser steps done, skipped ones included.
        seconds: spent in training steps, loading included, evaluation and saving apart.
        evaluated: the step after which the last evaluation was.
        best_ap: best mask AP on the validation set, None before the first.
        best_epoch: when that was.
        stale: evaluations since then.
        skipped: steps that broke and changed nothing.
        skipped_in_row: of those, the last ones without a good step between.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    seconds: float = 0.0
    evaluated: int = 0
    best_ap: float | None = None
    best_epoch: int | None = None
    stale: int = 0
    skipped: int = 0
    skipped_in_row: int = 0

    @property
    def epochs_begun(self) -> int:
        """Epochs finished, and the one that runs."""
        return self.epoch + (self.batch > 0)
