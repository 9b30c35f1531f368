"""The best candidates in a fixed order, and suppression by torch's own operations."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import nms

from segcli.models.inference.nms import float32_below, suppress
from segcli.models.inference.ranking import first_of, ranked, rows_at


@pytest.mark.parametrize("count", [0, 1, 7, 40])
def test_ranked_is_a_stable_sort(count: int) -> None:
    """With many equal scores, zeros and candidates that are not valid."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 6, (3, 40), generator=generator) / 5
    valid = torch.rand(3, 40, generator=generator) > 0.5
    valid[2] = False
    columns, best, filled = ranked(scores, valid, count)
    for row in range(3):
        used = torch.where(valid[row])[0]
        order = used[scores[row, used].sort(descending=True, stable=True)[1]][:count]
        assert columns[row, : len(order)].tolist() == order.tolist()
        assert filled[row].tolist() == [i < len(order) for i in range(count)]
        assert torch.equal(best[row, : len(order)], scores[row, order])
        assert (best[row, len(order) :] == -1).all()


def test_ranked_tells_all_scores_apart() -> None:
    """Neighbouring float32 numbers, the smallest ones too."""
    bits = torch.tensor([[1, 0, 2, 0x3F7FFFFF, 0x3F800000, 0x00800000]], dtype=torch.int32)
    columns, _, filled = ranked(bits.view(torch.float32), torch.ones(1, 6, dtype=torch.bool), 6)
    assert columns[0].tolist() == [4, 3, 5, 2, 0, 1]
    assert filled.all()


def test_scores_that_are_not_numbers_come_last() -> None:
    """They pass no threshold, so they are not valid."""
    scores = torch.tensor([[torch.nan, 0.5, 0.1]])
    columns, _, filled = ranked(scores, scores >= 0, 3)
    assert columns[0, :2].tolist() == [1, 2]
    assert filled[0].tolist() == [True, True, False]


def test_first_of() -> None:
    """Columns in order; rows with fewer, and with none."""
    chosen = torch.tensor([[0, 1, 0, 1, 1], [0, 0, 0, 0, 1], [0] * 5], dtype=torch.bool)
    columns, taken = first_of(chosen, 2)
    assert taken.tolist() == [[True, True], [True, False], [False, False]]
    assert columns[0].tolist() == [1, 3]
    assert columns[1, 0] == 4


def test_rows_at() -> None:
    """Whole rows, in the order that is asked for."""
    values = torch.arange(12.0).view(1, 4, 3)
    assert rows_at(values, torch.tensor([[2, 0]])).tolist() == [[[6, 7, 8], [0, 1, 2]]]


@pytest.mark.parametrize("overlap", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("count", [0, 1, 33, 120])
def test_suppression_by_torch_equals_torchvisions(count: int, overlap: float) -> None:
    """Sets with labels and boxes that are not valid; the kernels are tested with more."""
    generator = torch.Generator().manual_seed(count)
    corner = 60 * torch.rand(2, count, 2, generator=generator)
    boxes = torch.cat((corner, corner + 20 + 20 * torch.rand(2, count, 2, generator=generator)), 2)
    valid = torch.rand(2, count, generator=generator) > 0.2
    labels = torch.randint(0, 2, (2, count), generator=generator)
    expected = torch.zeros_like(valid)
    for g in range(2):
        for label in range(2):
            rows = torch.where(valid[g] & (labels[g] == label))[0]
            kept = nms(boxes[g, rows], torch.arange(len(rows), 0, -1).float(), overlap)
            expected[g, rows[kept]] = True
    assert torch.equal(suppress(boxes, valid, overlap, labels), expected)
    assert count < 100 or expected.sum() < valid.sum()


def test_float32_below() -> None:
    """Never above, and the next number is."""
    for number in (0.3, 0.5, 0.7, 0.1, 1.0, 0.0):
        below = torch.tensor(float32_below(number))
        assert below.item() <= number < torch.nextafter(below, torch.tensor(2.0)).item()
