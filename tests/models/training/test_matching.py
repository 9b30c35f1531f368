"""Matching against torchvision's matrix and its `Matcher`."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from segcli.models.training import matching
from segcli.models.training.matching import Thresholds, left_alone, match, pairwise_iou
from segcli.models.training.sampling import BACKGROUND, FOREGROUND, IGNORED


def _boxes(count: int, seed: int) -> Tensor:
    """Boxes on whole pixels, so that equal overlaps occur."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.randint(0, 40, (count, 2), generator=generator)
    return torch.cat(
        (corner, corner + torch.randint(1, 30, (count, 2), generator=generator)), 1
    ).float()


def _by_torchvision(candidates: Tensor, objects: Tensor, t: Thresholds) -> tuple[Tensor, Tensor]:
    found = Matcher(t.high, t.low, t.best_too)(box_iou(objects, candidates))
    kinds = torch.full_like(found, FOREGROUND)
    kinds[found == Matcher.BELOW_LOW_THRESHOLD] = BACKGROUND
    kinds[found == Matcher.BETWEEN_THRESHOLDS] = IGNORED
    return found, kinds


@pytest.mark.parametrize("pairs", [1, 1000, 1 << 20], ids=["one by one", "some", "at once"])
@pytest.mark.parametrize("best_too", [False, True], ids=["heads", "rpn"])
def test_equal_to_torchvisions(pairs: int, best_too: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many objects are looked at together, also where overlaps tie."""
    monkeypatch.setattr(matching, "_PAIRS", {"cpu": pairs})
    candidates, objects = _boxes(400, 1), _boxes(30, 2)
    thresholds = Thresholds(0.7, 0.3, best_too) if best_too else Thresholds(0.5, 0.5, best_too)
    owner, kinds = match(candidates, objects, thresholds)
    expected, expected_kinds = _by_torchvision(candidates, objects, thresholds)
    assert torch.equal(kinds.long(), expected_kinds)
    assert torch.equal(owner[kinds == FOREGROUND], expected[kinds == FOREGROUND])
    assert (kinds == FOREGROUND).sum() > 10


@pytest.mark.parametrize(("M", "G"), [(0, 3), (5, 0), (0, 0)])
def test_nothing_to_match(M: int, G: int) -> None:
    """Without objects all is background."""
    owner, kinds = match(_boxes(M, 1), _boxes(G, 2), Thresholds(0.7, 0.3, True))
    assert (owner.shape, kinds.shape) == ((M,), (M,))
    assert (kinds == BACKGROUND).all()


def test_an_object_that_nothing_overlaps_chooses_nothing() -> None:
    """Its best overlap is 0, which all candidates have."""
    far = torch.tensor([[1000.0, 1000, 1010, 1010]])
    _, kinds = match(_boxes(50, 1), far, Thresholds(0.7, 0.3, True))
    assert (kinds == BACKGROUND).all()


@pytest.mark.parametrize("best_too", [False, True], ids=["proposals", "anchors"])
def test_near_objects_that_are_not_looked_at_nothing_is_background(best_too: bool) -> None:
    """Background is what is background of all objects, and what is foreground stays so."""
    candidates, objects, others = _boxes(3000, 1), _boxes(5, 2), _boxes(40, 3)
    thresholds = Thresholds(0.7 if best_too else 0.5, 0.3 if best_too else 0.5, best_too)
    _, kinds = match(candidates, objects, thresholds)
    found = left_alone(kinds, candidates, others, thresholds)
    _, of_others = _by_torchvision(candidates, others, thresholds)
    assert found.dtype == torch.int8
    assert torch.equal(found == FOREGROUND, kinds == FOREGROUND)
    assert torch.equal(found == BACKGROUND, (kinds == BACKGROUND) & (of_others == BACKGROUND))
    assert (found != kinds).sum() > 10


def test_all_objects_are_looked_at() -> None:
    """Nothing changes, whether there are no others or none is named."""
    thresholds = Thresholds(0.7, 0.3, True)
    candidates = _boxes(300, 1)
    _, kinds = match(candidates, _boxes(5, 2), thresholds)
    assert left_alone(kinds, candidates, None, thresholds) is kinds
    assert torch.equal(left_alone(kinds, candidates, _boxes(0, 2), thresholds), kinds)
    empty = torch.zeros(0, dtype=torch.int8)
    assert left_alone(empty, _boxes(0, 1), _boxes(3, 2), thresholds).shape == (0,)


def test_overlaps_have_torchvisions_bits() -> None:
    """The same rounding as `box_iou`."""
    a, b = torch.rand(20, 4) * 30, torch.rand(50, 4) * 30
    a[:, 2:] += a[:, :2]
    b[:, 2:] += b[:, :2]
    assert torch.equal(pairwise_iou(a, b.t().contiguous()), box_iou(a, b))
