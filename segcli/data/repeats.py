"""Repeat-factor sampling: pictures with rare classes come up more often (Gupta et al. 2019, LVIS, section 4.3)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segcli.data.packed import PackedPictures


def repeat_factors(pictures: PackedPictures, threshold: float) -> NDArray[np.float64]:
    """How often an epoch shows each picture, on average.

    A class's factor is max(1, √(threshold / share of the pictures that hold it)); a picture's is the largest of its
    classes', crowds left out, and 1 where it has none.

    Args:
        pictures: the dataset.
        threshold: share of the pictures below which a class counts as rare; 0 = every picture once.

    Returns:
        float64 (P,), each ≥ 1.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold {threshold}: expected a share of the pictures, 0 to 1")
    ends, single = pictures.column("annotation_ends"), pictures.column("crowd") == 0
    owner = np.repeat(np.arange(len(pictures)), np.diff(ends))[single]
    factors = np.ones(len(pictures))
    if len(owner) == 0:
        return factors
    # one row per picture and class that it holds
    pairs = np.unique(np.stack((owner, pictures.column("label")[single]), axis=1), axis=0)
    share = np.bincount(pairs[:, 1]) / len(pictures)
    of_class = np.sqrt(threshold / np.where(share > 0, share, 1.0))
    np.maximum.at(factors, pairs[:, 0], of_class[pairs[:, 1]])
    return factors
