"""What a worker keeps to average masks with; `tests/models/test_mask_targets.py` has the averages."""

from __future__ import annotations

import numpy as np
import pytest

from segcli.data import patches
from segcli.data.patches import coverage_patch, coverage_patches


@pytest.fixture(autouse=True)
def _nothing_kept() -> None:
    patches._kept_filter.cache_clear()


def test_filters_of_large_objects_are_not_kept() -> None:
    """Pictures of 4,000 pixels with objects of every size would hold 460 MB in each worker."""
    for length in (511, 512, 513, 2000, 2001):
        coverage_patch(np.ones((length, 3), bool))
        coverage_patch(np.ones((3, length), bool))
    assert patches._kept_filter.cache_info().currsize == 3  # of 3, 511 and 512 pixels
    every = sum(56 * length * 4 for length in range(1, patches._KEPT + 1))
    assert every <= 32 * 2**20
    assert patches._kept_filter.cache_info().maxsize == patches._KEPT


@pytest.mark.parametrize("length", [511, 512, 513, 1500])
def test_kept_or_not_the_patch_is_the_same(length: int) -> None:
    """A mask of whole cells: every cell of the patch is full or empty, whatever its length."""
    cells = np.arange(56) % 3 == 0
    crop = np.repeat(cells[:, None], 2, 1)[np.arange(length) * 56 // length]
    (patch,) = coverage_patches([crop])
    inner = patch[1:-1, 1:-1]
    assert np.abs(inner[cells].astype(int) - 255).max() <= 255 * 56 / length + 1
    assert inner[~cells].max() <= 255 * 56 / length + 1
    assert (coverage_patch(crop) == patch).all()
