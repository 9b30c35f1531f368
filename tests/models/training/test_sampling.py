"""Samples: counts, shares, and what they depend on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from segcli.models.training.sampling import BACKGROUND, FOREGROUND, IGNORED, draw, generators

CPU = torch.device("cpu")


def _kinds(foreground: int, background: int, ignored: int) -> Tensor:
    kinds = [FOREGROUND] * foreground + [BACKGROUND] * background + [IGNORED] * ignored
    order = torch.randperm(len(kinds), generator=torch.Generator().manual_seed(1))
    return torch.tensor(kinds, dtype=torch.int8)[order]


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ((0, 0, 0), (0, 0)),
        ((0, 0, 7), (0, 0)),
        ((50, 500, 9), (16, 48)),
        ((5, 500, 9), (5, 59)),
        ((50, 10, 9), (16, 10)),
        ((3, 0, 9), (3, 0)),
        ((0, 20, 0), (0, 20)),
    ],
)
def test_counts_are_torchvisions(there: tuple[int, int, int], expected: tuple[int, int]) -> None:
    """Of 64 a quarter may be foreground; background fills up, as far as there is some."""
    kinds = _kinds(*there)
    sample = draw(kinds, 64, 0.25, torch.Generator().manual_seed(0))
    assert (int(sample.foreground.sum()), int((~sample.foreground).sum())) == expected
    assert sample.valid.all()
    assert len(set(sample.rows.tolist())) == len(sample.rows)
    assert (kinds[sample.rows] == torch.where(sample.foreground, FOREGROUND, BACKGROUND)).all()
    assert sample.foreground.tolist() == sorted(sample.foreground.tolist(), reverse=True)


def test_every_row_is_drawn_as_often() -> None:
    """The distribution is uniform: 2,000 draws of 8 from 40."""
    counts = torch.zeros(80)
    kinds = _kinds(40, 40, 0)
    for key in range(2000):
        sample = draw(kinds, 16, 0.5, torch.Generator().manual_seed(key))
        counts[sample.rows] += 1
    assert counts.sum() == 2000 * 16
    assert ((counts - 400).abs() < 5 * 400**0.5).all()


def test_a_key_is_all_that_matters() -> None:
    """Equal keys draw alike, others do not; without keys torch's own seed decides."""
    one, other, same = generators([1, 2, 1], 3, CPU)
    numbers = [torch.rand(5, generator=g) for g in (one, other, same)]
    assert torch.equal(numbers[0], numbers[2])
    assert not torch.equal(numbers[0], numbers[1])
    torch.manual_seed(3)
    first = torch.rand(5, generator=generators(None, 1, CPU)[0])
    torch.manual_seed(3)
    assert torch.equal(first, torch.rand(5, generator=generators(None, 1, CPU)[0]))


@pytest.mark.parametrize("key", [-1, 0, 2**63 - 1])
def test_any_int64_is_a_key(key: int) -> None:
    """Negative ones too."""
    assert generators([key], 1, CPU)
