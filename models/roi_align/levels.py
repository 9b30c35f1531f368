"""Which pyramid level a RoI is pooled from (Lin et al. 2017, equation 1), in each family's own rounding."""

from __future__ import annotations

import torch
from torch import Tensor

from segcli.models.conventions import LevelRule

_CANONICAL_SIZE = 224.0
_CANONICAL_LEVEL = 4


def assign_levels(boxes: Tensor, first_level: int, last_level: int, rule: LevelRule) -> Tensor:
    """Index into the list of levels for each box.

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
    side = torch.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    if rule == "torchvision":
        eps = torch.tensor(1e-6, dtype=side.dtype, device=side.device)
        level = _CANONICAL_LEVEL + torch.log2(side / _CANONICAL_SIZE) + eps
    elif rule == "detectron2":
        level = _CANONICAL_LEVEL + torch.log2(side / _CANONICAL_SIZE + 1e-8)
    else:
        level = torch.log2(side / 56.0 + 1e-6) + 2
    level = torch.floor(level).clamp(min=first_level, max=last_level) - first_level
    return torch.nan_to_num(level, nan=0.0).to(torch.int64)
