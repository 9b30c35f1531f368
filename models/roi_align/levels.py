"""Which pyramid level a RoI is pooled from (Lin et al. 2017, equation 1), in each family's own rounding.

The formulas are roots and logarithms, whose last bit differs between processors. They only rise with the box's area,
so each is the same as a comparison of the area with a few exact thresholds: that is what the backends do.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from segcli.models.conventions import LevelRule

_CANONICAL_SIZE = 224.0
_CANONICAL_LEVEL = 4


def assign_levels(boxes: Tensor, first_level: int, last_level: int, rule: LevelRule) -> Tensor:
    """Index into the list of levels for each box, by the family's own formula.

    The families differ in where a small number is added before rounding down, which matters only for boxes whose
    side is 112 · 2^k pixels: torchvision `ops/poolers.py`, detectron2 `modeling/poolers.py`, mmdetection
    `single_level_roi_extractor.py`.

    Args:
        boxes: float32 (R, 4), xyxy in input pixels.
        first_level: log2 of the first level's stride (2 for P2).
        last_level: log2 of the last level's stride (5 for P5).
        rule: whose rounding.

    Returns:
        int64 (R,), 0 for the first level. A box with NaN gets 0.
    """
    return _by_formula(box_areas(boxes), first_level, last_level, rule)


def first_and_last_level(scales: Sequence[float]) -> tuple[int, int]:
    """log2 of the first and last level's stride."""
    first, last = (round(-math.log2(scale)) for scale in (scales[0], scales[-1]))
    return first, last


def box_areas(boxes: Tensor) -> Tensor:
    """(R,) areas of (R, 4) xyxy boxes, in their type; as all three families compute them before the root."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def levels_by_area(areas: Tensor, thresholds: tuple[float, ...]) -> Tensor:
    """int64 (R,): how many thresholds each area reaches; 0 for NaN."""
    level = torch.zeros(areas.shape, dtype=torch.int64, device=areas.device)
    for threshold in thresholds:
        level += areas >= threshold
    return level


@lru_cache(maxsize=64)
def area_thresholds(first_level: int, last_level: int, rule: LevelRule) -> tuple[float, ...]:
    """Per level but the first, the smallest float32 area that the family's formula sends there or coarser.

    Found by bisection over the bit patterns of positive float32 numbers, whose order is the numbers' own. The formula
    is evaluated by torch on the CPU.

    Returns:
        `last_level - first_level` rising float32 values, in squared input pixels.
    """
    return tuple(
        _smallest_area(index, first_level, last_level, rule)
        for index in range(1, last_level - first_level + 1)
    )


def _smallest_area(index: int, first_level: int, last_level: int, rule: LevelRule) -> float:
    below, reached = (
        0,
        _bits(float("inf")),
    )  # area 0 is on the first level, an infinite one on the last
    while reached - below > 1:
        middle = (below + reached) // 2
        area = torch.tensor([_number(middle)], dtype=torch.float32, device="cpu")
        if int(_by_formula(area, first_level, last_level, rule)) >= index:
            reached = middle
        else:
            below = middle
    return _number(reached)


def _by_formula(areas: Tensor, first_level: int, last_level: int, rule: LevelRule) -> Tensor:
    side = torch.sqrt(areas)
    if rule == "torchvision":
        eps = torch.tensor(1e-6, dtype=side.dtype, device=side.device)
        level = _CANONICAL_LEVEL + torch.log2(side / _CANONICAL_SIZE) + eps
    elif rule == "detectron2":
        level = _CANONICAL_LEVEL + torch.log2(side / _CANONICAL_SIZE + 1e-8)
    elif rule == "mmdetection":
        # rounded down before P2 is counted as 0: the sum 0.99999994 + 2 would be 3
        level = torch.floor(torch.log2(side / 56.0 + 1e-6)) + 2
    else:
        raise ValueError(f"level rule {rule!r}, expected torchvision, detectron2 or mmdetection")
    level = torch.floor(level).clamp(min=first_level, max=last_level) - first_level
    return torch.nan_to_num(level, nan=0.0).to(torch.int64)


def _bits(number: float) -> int:
    return int(struct.unpack("<i", struct.pack("<f", number))[0])


def _number(bits: int) -> float:
    return float(struct.unpack("<f", struct.pack("<i", bits))[0])
