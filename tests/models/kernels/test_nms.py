"""Greedy non-maximum suppression against torchvision's operator on a CPU, which it equals bit by bit."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torchvision.ops import nms

from segcli.models.inference.nms import suppress

SIZES = [1, 2, 31, 32, 33, 64, 100, 129, 300]


def sets(groups: int, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Boxes around a few centres, and which of them are valid."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randint(0, 4, (groups, count, 2), generator=generator) * 40.0
    corner = centre + 12 * torch.rand(groups, count, 2, generator=generator)
    side = 25 + 20 * torch.rand(groups, count, 2, generator=generator)
    boxes = torch.cat((corner, corner + side), 2)
    return boxes, torch.rand(groups, count, generator=generator) > 0.2


def by_torchvision(boxes: Tensor, valid: Tensor, overlap: float, labels: Tensor | None) -> Tensor:
    """One set after another, one label after another."""
    kept = torch.zeros_like(valid)
    groups = torch.zeros_like(valid, dtype=torch.int64) if labels is None else labels
    scores = torch.arange(boxes.shape[1], 0, -1).float()
    for g in range(len(boxes)):
        for label in groups[g].unique():
            rows = torch.where(valid[g] & (groups[g] == label))[0]
            kept[g, rows[nms(boxes[g, rows], scores[rows], overlap)]] = True
    return kept


def check(
    device: str, boxes: Tensor, valid: Tensor, overlap: float = 0.5, labels: Tensor | None = None
) -> Tensor:
    """Equal to torchvision's; returns what is kept."""
    moved = None if labels is None else labels.to(device)
    found = suppress(boxes.to(device), valid.to(device), overlap, moved).cpu()
    assert found.dtype == torch.bool
    expected = by_torchvision(boxes, valid, overlap, labels)
    assert torch.equal(found, expected), (found != expected).nonzero()[:5]
    return found


def test_nothing(device: str) -> None:
    """No sets, and sets without boxes."""
    for shape in ((0, 5), (3, 0)):
        found = suppress(
            torch.zeros(*shape, 4, device=device),
            torch.zeros(shape, dtype=torch.bool, device=device),
            0.5,
        )
        assert found.shape == shape


def test_no_valid_box(device: str) -> None:
    """Nothing is kept."""
    boxes, valid = sets(2, 40)
    assert not check(device, boxes, torch.zeros_like(valid)).any()


@pytest.mark.parametrize("count", SIZES)
def test_sizes(device: str, count: int) -> None:
    """Below, at and beyond a word, and beyond a block of rows; some remain and some do not."""
    boxes, valid = sets(2, count, seed=count)
    kept = check(device, boxes, valid)
    if count > 30:
        assert 0 < kept.sum() < valid.sum()


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5, 0.7, 1.0])
def test_overlaps(device: str, overlap: float) -> None:
    """Thresholds that float32 rounds up and down."""
    boxes, valid = sets(1, 90)
    check(device, boxes, valid, overlap)


@pytest.mark.parametrize("labels", [1, 3, 90])
def test_labels(device: str, labels: int) -> None:
    """Boxes of other labels are left alone."""
    boxes, valid = sets(2, 70)
    check(device, boxes, valid, 0.5, torch.randint(0, labels, valid.shape))


@pytest.mark.parametrize(("threshold", "side"), [(0.3, 3.0), (0.7, 7.0), (0.1, 1.0), (0.9, 9.0)])
def test_an_overlap_that_is_the_threshold(device: str, threshold: float, side: float) -> None:
    """In float32, 3 / 10 is more than 0.3 in float64, and 7 / 10 less than 0.7: torchvision compares in float64."""
    boxes = torch.tensor([[[0.0, 0.0, 10.0, 1.0], [0.0, 0.0, side, 1.0]]])
    kept = check(device, boxes, torch.ones(1, 2, dtype=torch.bool), threshold)
    assert bool(kept[0, 1]) == (float(torch.tensor(side) / 10) <= threshold)


def test_a_chain_through_all_words(device: str) -> None:
    """Each box overlaps the next and no other, so every second one remains, over three words."""
    x = torch.arange(96.0)
    boxes = torch.stack((x * 5, 0 * x, x * 5 + 10, 0 * x + 10), 1)[None]
    kept = check(device, boxes, torch.ones(1, 96, dtype=torch.bool), 0.3)
    assert kept[0].tolist() == [i % 2 == 0 for i in range(96)]


def test_odd_boxes(device: str) -> None:
    """Equal, empty, inside-out, infinite and NaN boxes remove what they remove in torchvision."""
    inf, nan = math.inf, math.nan
    boxes = torch.tensor(
        [
            [5.0, 5.0, 5.0, 5.0], [5.0, 5.0, 5.0, 5.0], [9.0, 9.0, 2.0, 2.0], [0.0, 0.0, 10.0, 10.0],
            [0.0, 0.0, 10.0, 10.0], [-inf, -inf, inf, inf], [0.0, 0.0, inf, 1.0], [1.0, 1.0, 9.0, 9.5],
        ]
    )[None]  # fmt: skip
    check(device, boxes, torch.ones(1, len(boxes[0]), dtype=torch.bool))
    with_nan = torch.cat((boxes, torch.tensor([[[nan, 0.0, 10.0, 10.0]]])), 1)
    valid = torch.ones(1, 9, dtype=torch.bool)
    assert (
        suppress(with_nan.to(device), valid.to(device), 0.5)
        .cpu()[0, :8]
        .equal(suppress(boxes.to(device), valid[:, :8].to(device), 0.5).cpu()[0])
    )
