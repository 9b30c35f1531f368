"""Small networks and batches for training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from segcli.models import ARCHITECTURES, Anchors, MaskRCNN, ModelSpec

Targets = list[dict[str, Tensor]]
SIDE = 58  # of a patch


@dataclass
class Batch:
    """What the network takes."""

    images: Tensor
    sizes: list[tuple[int, int]]
    targets: Targets


def objects(boxes: list[list[float]], labels: list[int]) -> dict[str, Tensor]:
    """A picture's targets; every mask is an ellipse."""
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, SIDE),) * 2, indexing="ij")
    ellipse = ((y**2 + x**2 <= 0.9) * 255).to(torch.uint8)
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "masks": ellipse.expand(len(boxes), -1, -1).contiguous(),
    }


def nano(classes: int = 3, **changes: object) -> MaskRCNN:
    """Seeded nano; `changes` are of its conventions' numerics."""
    torch.manual_seed(0)
    row = ARCHITECTURES["mask-rcnn-nano"]
    numerics = replace(row.conventions.numerics, **changes)  # type: ignore[arg-type]
    conventions = replace(row.conventions, numerics=numerics)
    anchors = Anchors(((8,), (16,), (32,), (64,), (128,)))
    network = MaskRCNN(ModelSpec(row.name, classes, anchors, conventions))
    return network.to(memory_format=torch.channels_last).train()


@pytest.fixture
def batch() -> Batch:
    """Two pictures of different size; the second has no object."""
    torch.manual_seed(1)
    images = torch.randn(2, 3, 96, 128)
    images[1, :, 80:] = 0
    images[1, :, :, 100:] = 0
    first = objects([[10, 12, 60, 70], [50, 20, 120, 90], [5, 60, 20, 80]], [1, 3, 2])
    return Batch(images, [(96, 128), (80, 100)], [first, objects([], [])])


@pytest.fixture
def make_nano() -> Callable[..., MaskRCNN]:
    """See `nano`."""
    return nano


@pytest.fixture
def make_objects() -> Callable[[list[list[float]], list[int]], dict[str, Tensor]]:
    """See `objects`."""
    return objects
