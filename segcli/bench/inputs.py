"""Feature maps, boxes and gradients of a workload; seeded, made on the CPU, the same on every machine."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from segcli.bench.workloads import Boxes, Head, Scale, Workload

STRIDES = (4, 8, 16, 32)
_OBJECTS = 20  # per picture
_SIDE = 96.0  # median side of an object in a picture of 800 pixels, from COCO's areas
_SPREAD = 0.8  # of the logarithm of an object's side


@dataclass(frozen=True)
class Pooling:
    """What one head asks for.

    Attributes:
        rois: float32 (R, 5): picture index, x1, y1, x2, y2 in input pixels; grouped by picture.
        bins: output bins per side.
        gradient: float32 (R, C, bins, bins), of the output.
    """

    rois: Tensor
    bins: int
    gradient: Tensor

    def boxes_by_picture(self, pictures: int) -> list[Tensor]:
        """(R_i, 4) float32 per picture, torchvision's form."""
        return [self.rois[self.rois[:, 0] == i, 1:] for i in range(pictures)]


@dataclass(frozen=True)
class Inputs:
    """What every contestant gets.

    Attributes:
        image_size: (H, W) of the padded input picture, in pixels.
        maps: per level float32 (N, C, H, W), contiguous, on the CPU.
        strides: input pixels per cell, per level.
        poolings: one per head.
    """

    image_size: tuple[int, int]
    maps: list[Tensor]
    strides: tuple[int, ...]
    poolings: list[Pooling]

    @property
    def scales(self) -> tuple[float, ...]:
        """1 / stride per level."""
        return tuple(1.0 / stride for stride in self.strides)

    @property
    def pictures(self) -> int:
        """In the batch."""
        return len(self.maps[0])


def make_inputs(workload: Workload, scale: Scale, seed: int = 0) -> Inputs:
    """Standard normal features and gradients, and the workload's boxes."""
    generator = torch.Generator().manual_seed(seed)
    size = (scale.height, scale.width)
    strides = STRIDES[: workload.levels]
    maps = [
        torch.randn(
            (workload.pictures, scale.channels, size[0] // s, size[1] // s), generator=generator
        )
        for s in strides
    ]
    poolings = [_pooling(head, workload.pictures, scale, generator) for head in workload.heads]
    return Inputs(size, maps, strides, poolings)


def _pooling(head: Head, pictures: int, scale: Scale, generator: torch.Generator) -> Pooling:
    rows = []
    for i in range(pictures):
        boxes = make_boxes(head.boxes, head.count(scale), (scale.height, scale.width), generator)
        rows.append(torch.cat((torch.full((len(boxes), 1), float(i)), boxes), 1))
    rois = torch.cat(rows)
    shape = (len(rois), scale.channels, head.bins, head.bins)
    return Pooling(rois, head.bins, torch.randn(shape, generator=generator))


def make_boxes(
    kind: Boxes, count: int, size: tuple[int, int], generator: torch.Generator
) -> Tensor:
    """(count, 4) float32 xyxy boxes inside a picture of `size` (H, W) pixels, each side at least one pixel."""
    height, width = size
    if kind == "identical":
        box = torch.tensor([[width * 0.3, height * 0.3, width * 0.3 + 90.5, height * 0.3 + 70.25]])
        return _inside(box.expand(count, 4), size)
    if kind == "small":
        sides = torch.rand((count, 2), generator=generator) * 84 + 12  # under 112 × 112: P2
        centres = _places(count, size, generator)
        return _inside(torch.cat((centres - sides / 2, centres + sides / 2), 1), size)
    around = _near_objects(count, size, generator)
    if kind == "objects":
        return around
    background = torch.rand(count, generator=generator) < 0.2
    elsewhere = _from(_places(count, size, generator), _sides(count, size, generator), size)
    return torch.where(background[:, None], elsewhere, around)


def _near_objects(count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Boxes that miss one of a few objects by a little, as proposals do."""
    centres, sides = _places(_OBJECTS, size, generator), _sides(_OBJECTS, size, generator)
    popularity = torch.rand(_OBJECTS, generator=generator) ** 2 + 0.02
    chosen = torch.multinomial(popularity, count, replacement=True, generator=generator)
    centre, side = centres[chosen], sides[chosen]
    centre = centre + 0.12 * side * torch.randn((count, 2), generator=generator)
    side = side * torch.exp(0.2 * torch.randn((count, 2), generator=generator))
    return _from(centre, side, size)


def _places(count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    extent = torch.tensor([size[1], size[0]], dtype=torch.float32)
    return torch.rand((count, 2), generator=generator) * extent


def _sides(count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Log-normal sizes with log-normal aspect; (count, 2), width and height in pixels."""
    median = math.log(_SIDE * size[0] / 800)
    side = torch.exp(median + _SPREAD * torch.randn((count, 1), generator=generator))
    aspect = torch.exp(0.3 * torch.randn((count, 1), generator=generator))
    return torch.cat((side * aspect, side / aspect), 1)


def _from(centre: Tensor, side: Tensor, size: tuple[int, int]) -> Tensor:
    return _inside(torch.cat((centre - side / 2, centre + side / 2), 1), size)


def _inside(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Clipped to the picture, as every proposal is; at least a pixel remains."""
    limit = torch.tensor([size[1], size[0]], dtype=torch.float32)
    low = torch.minimum(boxes[:, :2].clamp(min=0), limit - 1)
    high = torch.maximum(torch.minimum(boxes[:, 2:], limit), low + 1)
    return torch.cat((low, high), 1)
