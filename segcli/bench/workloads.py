"""The RoIAlign workloads by name. Standard library only, so that the command's help imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Boxes = Literal["proposals", "objects", "small", "identical"]

SAMPLING_RATIO = 2  # torchvision's and detectron2's models; detectron2's own default is 0


@dataclass(frozen=True)
class Scale:
    """Sizes that all workloads of a run share.

    Attributes:
        height: of the input picture, in pixels; a multiple of 32, as the width is.
        width: of the input picture.
        channels: of every feature map.
        rois_divisor: a workload's RoIs are divided by it.
    """

    height: int
    width: int
    channels: int
    rois_divisor: int


FULL = Scale(800, 1344, 256, 1)
QUICK = Scale(128, 192, 16, 50)


@dataclass(frozen=True)
class Head:
    """What one head of the network pools.

    Attributes:
        rois: per picture.
        bins: output bins per side.
        boxes: `proposals` = log-normal sizes, clustered on objects, a fifth background; `objects` = the same without
            background; `small` = all on the finest level; `identical` = one box per picture, again and again.
    """

    rois: int
    bins: int
    boxes: Boxes

    def count(self, scale: Scale) -> int:
        """RoIs per picture at this scale, at least 2."""
        return max(self.rois // scale.rois_divisor, 2)


@dataclass(frozen=True)
class Workload:
    """One job for RoIAlign.

    Attributes:
        name: for `--workload`.
        summary: what it stands for.
        pictures: in the batch.
        heads: that pool from the same features.
        levels: 4 (P2 … P5), or 1: every box on P2, whatever its size.
    """

    name: str
    summary: str
    pictures: int
    heads: tuple[Head, ...]
    levels: int = 4

    def describe(self, scale: Scale) -> str:
        """`1 × 1000 RoIs → 256 × 7 × 7, 4 levels of 800 × 1344`, what the table's title says."""
        jobs = [
            f"{self.pictures} × {h.count(scale)} RoIs → {scale.channels} × {h.bins} × {h.bins}"
            for h in self.heads
        ]
        levels = "4 levels" if self.levels == 4 else "P2 alone"
        return f"{' and '.join(jobs)}, {levels} of {scale.height} × {scale.width}"


_BOX = Head(512, 7, "proposals")
_MASK = Head(64, 14, "objects")

WORKLOADS = {
    w.name: w
    for w in (
        Workload("box-one-level", "box head, one map", 1, (Head(1000, 7, "proposals"),), levels=1),
        Workload("box", "box head at inference", 1, (Head(1000, 7, "proposals"),)),
        Workload("mask", "mask head at inference", 1, (Head(100, 14, "objects"),)),
        Workload("train-box", "box head in training", 2, (_BOX,)),
        Workload("train-mask", "mask head in training", 2, (_MASK,)),
        Workload("train-both", "both heads, one gradient", 2, (_BOX, _MASK)),
        Workload("worst-small", "worst case, all on P2", 2, (Head(512, 7, "small"),)),
        Workload("worst-identical", "worst case, all the same", 2, (Head(512, 7, "identical"),)),
    )
}
