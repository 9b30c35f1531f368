"""Level assignment against each family's own formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.ops.poolers import LevelMapper

from segcli.models.conventions import LevelRule
from segcli.models.roi_align import assign_levels
from segcli.models.roi_align.levels import area_thresholds, box_areas, levels_by_area


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


RULES: list[LevelRule] = ["torchvision", "detectron2", "mmdetection"]


def as_the_family_does(boxes: torch.Tensor, first: int, last: int, rule: LevelRule) -> torch.Tensor:
    """Torchvision's own mapper, and the lines of the other two, which are not installed (permalinks in docs)."""
    if rule == "torchvision":
        return LevelMapper(first, last)([boxes])
    side = torch.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    if rule == "detectron2":
        level = torch.floor(4 + torch.log2(side / 224 + 1e-8))
        return torch.clamp(level, min=first, max=last).to(torch.int64) - first
    level = torch.floor(torch.log2(side / (14 * 2**first) + 1e-6))
    return level.clamp(min=0, max=last - first).long()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("first", "last"), [(2, 5), (2, 6), (3, 4), (3, 3)])
def test_thresholds_are_the_formula(rule: LevelRule, first: int, last: int) -> None:
    """A million boxes of all sizes go where the family's formula sends them."""
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(1_000_000, 2, generator=generator) * 1000
    side = torch.exp(torch.rand(1_000_000, 2, generator=generator) * 9 - 1)
    boxes = torch.cat((corner, corner + side), 1)
    found = levels_by_area(box_areas(boxes), area_thresholds(first, last, rule))
    assert torch.equal(found, as_the_family_does(boxes, first, last, rule))
    assert torch.equal(found, assign_levels(boxes, first, last, rule))
    assert found.max() == last - first


@pytest.mark.parametrize("rule", RULES)
def test_thresholds_at_every_boundary(rule: LevelRule) -> None:
    """Areas within ± 3 ulp of every threshold, and sides within ± 3 ulp of every edge of the paper."""
    thresholds = area_thresholds(2, 5, rule)
    assert list(thresholds) == sorted(thresholds)
    ulps = torch.arange(-3, 4, dtype=torch.int32)
    for threshold in thresholds:
        near = (torch.tensor(threshold).view(torch.int32) + ulps).view(torch.float32)
        boxes = torch.stack((torch.zeros(7), torch.zeros(7), near, torch.ones(7)), 1)
        found = levels_by_area(box_areas(boxes), thresholds)
        assert torch.equal(found, as_the_family_does(boxes, 2, 5, rule))
        assert found.diff().tolist() == [0, 0, 1, 0, 0, 0]  # it steps at the threshold itself
    for edge in (112.0, 224.0, 448.0):
        near = (torch.tensor(edge).view(torch.int32) + ulps).view(torch.float32)
        boxes = torch.stack((torch.zeros(7), torch.zeros(7), near, near), 1)
        found = levels_by_area(box_areas(boxes), thresholds)
        assert torch.equal(found, as_the_family_does(boxes, 2, 5, rule))


def test_odd_boxes_have_the_formulas_level() -> None:
    """Boxes that are NaN, endless, without area or inside out."""
    nan, inf = float("nan"), float("inf")
    boxes = torch.tensor(
        [[nan, 0, 9, 9], [0, 0, inf, 9], [5, 5, 5, 5], [900, 900, 0, 0], [900, 0, 0, 900]]
    )
    for rule in RULES:
        found = levels_by_area(box_areas(boxes), area_thresholds(2, 5, rule))
        assert found.tolist() == [0, 3, 0, 3, 0]
        assert torch.equal(found, assign_levels(boxes, 2, 5, rule))


def test_an_unknown_rule_is_refused() -> None:
    """Not taken for one of the three."""
    with pytest.raises(ValueError, match="level rule 'own', expected torchvision"):
        assign_levels(torch.zeros(1, 4), 2, 5, "own")  # type: ignore[arg-type]
