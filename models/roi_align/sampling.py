"""How a RoI becomes samples: what every backend is told beside the features and the boxes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Mode = Literal["avg", "max"]

MAX_LEVELS = 4
"""P2 … P5; the kernels take one pointer per level."""


@dataclass(frozen=True)
class Sampling:
    """One RoIAlign, whatever carries it out.

    Attributes:
        scales: 1 / stride per level, finest first.
        thresholds: per level but the first, the smallest area (float32, in squared input pixels) of a box that belongs
            to that level or a coarser one; see `levels.area_thresholds`.
        ratio: samples per bin and axis; 0 = adaptive, one per covered cell.
        aligned: shift by half a cell, so that pixel centres lie at .5.
        mode: `avg` or `max` over the samples of a bin.
    """

    scales: tuple[float, ...]
    thresholds: tuple[float, ...] = ()
    ratio: int = 2
    aligned: bool = False
    mode: Mode = "avg"

    def __post_init__(self) -> None:
        if not 1 <= len(self.scales) <= MAX_LEVELS:
            raise ValueError(f"{len(self.scales)} pyramid levels, expected 1 to {MAX_LEVELS}")
        if len(self.thresholds) != len(self.scales) - 1:
            raise ValueError(
                f"{len(self.thresholds)} area thresholds for {len(self.scales)} levels, expected one fewer"
            )
        if self.ratio < 0:
            raise ValueError(f"sampling ratio {self.ratio}, expected 0 (adaptive) or more")
        if self.mode not in ("avg", "max"):
            raise ValueError(f"RoIAlign mode {self.mode!r}, expected 'avg' or 'max'")

    def padded_scales(self) -> tuple[float, ...]:
        """Scales for `MAX_LEVELS` levels; the last is repeated."""
        return self.scales + self.scales[-1:] * (MAX_LEVELS - len(self.scales))

    def padded_thresholds(self) -> tuple[float, ...]:
        """Thresholds for `MAX_LEVELS` levels; no area reaches a level that is not there."""
        return self.thresholds + (math.nan,) * (MAX_LEVELS - 1 - len(self.thresholds))
