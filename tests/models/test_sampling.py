"""What describes one RoIAlign refuses what no backend could carry out."""

from __future__ import annotations

import math
from typing import Any

import pytest

from segcli.models.roi_align.sampling import Sampling


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"scales": ()}, "0 pyramid levels, expected 1 to 4"),
        ({"scales": (1.0,) * 5}, "5 pyramid levels"),
        ({"scales": (1.0, 0.5)}, "0 area thresholds for 2 levels"),
        ({"scales": (1.0,), "ratio": -1}, "sampling ratio -1"),
        ({"scales": (1.0,), "mode": "sum"}, "mode 'sum'"),
    ],
)
def test_what_cannot_be(given: dict[str, Any], message: str) -> None:
    """Levels, thresholds, samples and mode."""
    with pytest.raises(ValueError, match=message):
        Sampling(**given)


def test_levels_that_are_not_there_are_never_reached() -> None:
    """The kernels take four levels: the last scale again, and thresholds that no area reaches."""
    two = Sampling((0.25, 0.125), (100.0,))
    assert two.padded_scales() == (0.25, 0.125, 0.125, 0.125)
    assert two.padded_thresholds()[0] == 100.0
    assert all(math.isnan(threshold) for threshold in two.padded_thresholds()[1:])
