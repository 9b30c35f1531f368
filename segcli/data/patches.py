"""An object's mask as a small patch of fixed size: what the mask loss needs, whatever the picture's size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segcli.models.mask_targets import PATCH, RIM


def coverage_patch(crop: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Average a mask's tight crop into PATCH × PATCH cells, exactly, with a rim of zeros.

    Args:
        crop: bool (h, w), h and w ≥ 1.

    Returns:
        uint8 (PATCH + 2·RIM, PATCH + 2·RIM), 255 = the cell is covered entirely.
    """
    rows, columns = _box_filter(crop.shape[0]), _box_filter(crop.shape[1])
    cells = rows @ crop.astype(np.float32) @ columns.T
    patch = np.zeros((PATCH + 2 * RIM,) * 2, np.uint8)
    patch[RIM:-RIM, RIM:-RIM] = np.rint(cells * 255.0)
    return patch


def _box_filter(length: int) -> NDArray[np.float32]:
    """(PATCH, length): which share of each cell each pixel covers; rows sum to 1."""
    edges = np.arange(PATCH + 1, dtype=np.float64) * length / PATCH
    pixels = np.arange(length, dtype=np.float64)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    shares: NDArray[np.float64] = np.clip(overlap, 0.0, None) * (PATCH / length)
    return shares.astype(np.float32)
