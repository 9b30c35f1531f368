"""torchvision's RoIAlign in the three forms people run it in; imported, never rewritten."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.utils.deterministic
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign, roi_align
from torchvision.ops.poolers import LevelMapper

from segcli.bench.inputs import Inputs
from segcli.bench.workloads import SAMPLING_RATIO

Pool = Callable[[list[Tensor]], list[Tensor]]


@dataclass(frozen=True)
class Piece:
    """RoIs of one pooling that lie on one level.

    Attributes:
        pooling: its index.
        level: its index.
        rows: of the pooling's RoIs, int64 on the CPU.
    """

    pooling: int
    level: int
    rows: Tensor


def pieces_of(inputs: Inputs) -> list[Piece]:
    """Every pooling's RoIs by level, by torchvision's own rule."""
    mapper = LevelMapper(2, 1 + len(inputs.strides))  # clamps to the levels that there are
    pieces = []
    for k, pooling in enumerate(inputs.poolings):
        levels = mapper(pooling.boxes_by_picture(inputs.pictures))
        pieces += [Piece(k, i, torch.where(levels == i)[0]) for i in range(len(inputs.strides))]
    return pieces


def operator(inputs: Inputs, device: torch.device) -> Pool:
    """The bare operator, level by level, with the RoIs sorted beforehand and the results left in pieces.

    The best that can be said for it: choosing levels and putting the pieces together cost nothing here.
    """
    pieces = pieces_of(inputs)
    rois = [inputs.poolings[p.pooling].rois[p.rows].to(device) for p in pieces]
    bins = [inputs.poolings[p.pooling].bins for p in pieces]

    def pool(maps: list[Tensor]) -> list[Tensor]:
        return [
            roi_align(maps[p.level], r, b, inputs.scales[p.level], SAMPLING_RATIO, False)
            for p, r, b in zip(pieces, rois, bins, strict=True)
        ]

    return pool


def module(inputs: Inputs, device: torch.device, autocast: bool) -> Pool:
    """`MultiScaleRoIAlign` as Mask R-CNN calls it, one per head; under bf16 autocast where asked for."""
    names = [str(i) for i in range(len(inputs.strides))]
    poolers = [MultiScaleRoIAlign(names, p.bins, SAMPLING_RATIO) for p in inputs.poolings]
    boxes = [[b.to(device) for b in p.boxes_by_picture(inputs.pictures)] for p in inputs.poolings]
    sizes = [inputs.image_size] * inputs.pictures

    def pool(maps: list[Tensor]) -> list[Tensor]:
        features = dict(zip(names, maps, strict=True))
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            return [p(features, b, sizes) for p, b in zip(poolers, boxes, strict=True)]

    return pool


@contextmanager
def deterministic() -> Iterator[None]:
    """Deterministic algorithms, in which torchvision takes its pure-torch RoIAlign on CUDA, compiled.

    Without the filling of fresh memory that the mode turns on: it would only cost time.
    """
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    mode: Any = (
        torch.utils.deterministic
    )  # its attribute is a property of the module, which mypy does not see
    fill = mode.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    mode.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        mode.fill_uninitialized_memory = fill
