"""Level assignment against each family's own formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.ops.poolers import LevelMapper

from segcli.models.conventions import LevelRule
from segcli.models.roi_align import assign_levels


def _squares(sides: list[float]) -> torch.Tensor:
    return torch.tensor([[0.0, 0.0, s, s] for s in sides])


@pytest.mark.parametrize("rule", ["torchvision", "detectron2", "mmdetection"])
def test_sizes_go_to_the_levels_of_the_paper(rule: LevelRule) -> None:
    """224 px belongs to P4; half of it to P3; beyond the ends the first and last level take it."""
    boxes = _squares([0.0, 1.0, 100.0, 120.0, 230.0, 460.0, 5000.0])
    assert assign_levels(boxes, 2, 5, rule).tolist() == [0, 0, 0, 1, 2, 3, 3]


def test_no_boxes_and_nan_boxes() -> None:
    """No boxes give no levels; a box that is not a number gets the first level."""
    assert assign_levels(torch.zeros(0, 4), 2, 5, "torchvision").shape == (0,)
    nan = torch.full((1, 4), float("nan"))
    assert assign_levels(nan, 2, 5, "torchvision").tolist() == [0]


def test_torchvisions_rule_equals_its_mapper_around_every_edge() -> None:
    """Within ± 3 ulp of every side at which the level changes, and on random boxes."""
    sides = []
    for edge in (112.0, 224.0, 448.0, 896.0):
        value = np.float32(edge)
        for _ in range(3):
            value = np.nextafter(value, np.float32(0))
        for _ in range(7):
            sides.append(float(value))
            value = np.nextafter(value, np.float32(1e9))
    random = torch.rand(2000, 2) * 600
    boxes = torch.cat((_squares(sides), torch.cat((torch.zeros_like(random), random), 1)))
    assert torch.equal(assign_levels(boxes, 2, 5, "torchvision"), LevelMapper(2, 5)([boxes]))
