"""Repeat factors, by their definition."""

from __future__ import annotations

import numpy as np
import pytest

from segcli.annotations import Annotation, Picture
from segcli.data.packed import PackedPictures
from segcli.data.repeats import repeat_factors


def _pictures(*labels: list[int], crowd: bool = False) -> PackedPictures:
    part = (np.array([[0, 0], [3, 0], [3, 3]], np.float64),)
    return PackedPictures.of(
        Picture(i, "a", None, (9, 9), tuple(
            Annotation(0, k, np.zeros(4), 1.0, crowd, polygons=part) for k in row
        ))
        for i, row in enumerate(labels)
    )  # fmt: skip


def test_no_objects() -> None:
    """Every picture once."""
    assert repeat_factors(_pictures(), 0.5).tolist() == []
    assert repeat_factors(_pictures([], []), 0.5).tolist() == [1.0, 1.0]
    assert repeat_factors(_pictures([0], [], crowd=True), 1.0).tolist() == [1.0, 1.0]


def test_the_rarest_class_decides() -> None:
    """Class 0 is in 4 of 4 pictures, 1 in two, 2 in one; how many objects there are of it does not matter."""
    pictures = _pictures([0], [0, 1, 1, 1], [0, 1, 2], [0, 0])
    found = repeat_factors(pictures, 0.5)
    np.testing.assert_allclose(found, [1, 1, np.sqrt(0.5 / 0.25), 1])
    np.testing.assert_allclose(repeat_factors(pictures, 1.0), [1, np.sqrt(2), 2, 1])
    assert repeat_factors(pictures, 0.0).tolist() == [1.0] * 4


@pytest.mark.parametrize("threshold", [-0.1, 1.1])
def test_a_threshold_is_a_share(threshold: float) -> None:
    """Others are refused."""
    with pytest.raises(ValueError, match="0 to 1"):
        repeat_factors(_pictures([0]), threshold)
