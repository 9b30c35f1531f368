"""An object's mask as a small patch of fixed size: what the mask loss needs, whatever the picture's size."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from segcli.models.mask_targets import PATCH, RIM

_SIDE = PATCH + 2 * RIM
_AT_ONCE = 32  # 400 kB of cells, which stay in the processor's cache
_KEPT = 512  # pixels: all filters up to this length are 29 MB; a longer one costs little beside its crop


def coverage_patch(crop: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Average a mask's tight crop into PATCH × PATCH cells, exactly, with a rim of zeros.

    Args:
        crop: bool (h, w), h and w ≥ 1.

    Returns:
        uint8 (PATCH + 2·RIM, PATCH + 2·RIM), 255 = the cell is covered entirely.
    """
    patch: NDArray[np.uint8] = coverage_patches([crop])[0]
    return patch


def coverage_patches(crops: Sequence[NDArray[np.bool_]]) -> NDArray[np.uint8]:
    """The patch of each crop, uint8 (G, PATCH + 2·RIM, PATCH + 2·RIM); see `coverage_patch`."""
    patches = np.zeros((len(crops), _SIDE, _SIDE), np.uint8)
    cells = np.empty((min(len(crops), _AT_ONCE), PATCH, PATCH), np.float32)
    for start in range(0, len(crops), _AT_ONCE):
        part = crops[start : start + _AT_ONCE]
        for row, crop in enumerate(part):
            shares = _filter_of(crop.shape[0]) @ crop.astype(np.float32)
            np.matmul(shares, _filter_of(crop.shape[1]).T, out=cells[row])
        levels = np.rint(np.multiply(cells, 255.0, out=cells), out=cells)[: len(part)]
        patches[start : start + len(part), RIM:-RIM, RIM:-RIM] = levels
    return patches


def _filter_of(length: int) -> NDArray[np.float32]:
    return _kept_filter(length) if length <= _KEPT else _box_filter(length)


@lru_cache(maxsize=_KEPT)
def _kept_filter(length: int) -> NDArray[np.float32]:
    return _box_filter(length)


def _box_filter(length: int) -> NDArray[np.float32]:
    """(PATCH, length): which share of each cell each pixel covers; rows sum to 1."""
    edges = np.arange(PATCH + 1, dtype=np.float64) * length / PATCH
    pixels = np.arange(length, dtype=np.float64)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    shares: NDArray[np.float64] = np.clip(overlap, 0.0, None) * (PATCH / length)
    return shares.astype(np.float32)
