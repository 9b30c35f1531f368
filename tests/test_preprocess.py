"""Preprocessing against torchvision's own transform."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from segcli.models.conventions import Preprocess
from segcli.preprocess import collate, prepare, scale_for

STANDARD = Preprocess()


@pytest.mark.parametrize(
    "size",
    [(480, 640), (426, 640), (333, 500), (640, 427), (900, 7), (1, 30), (1200, 40)],
    ids=lambda s: f"{s[0]}x{s[1]}",
)
def test_equals_torchvisions_transform_bit_for_bit(size: tuple[int, int]) -> None:
    """Normalise, resize (size rounded down), pad: on odd sizes and on strips."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    stock = GeneralizedRCNNTransform(800, 1333, list(STANDARD.mean), list(STANDARD.std)).eval()
    expected, _ = stock([torch.from_numpy(image.transpose(2, 0, 1).copy()).float() / 255])
    prepared = prepare(image, STANDARD)
    batch, sizes = collate([prepared.tensor], 32)
    assert torch.equal(batch, expected.tensors)
    assert sizes == expected.image_sizes == [prepared.size]
    assert prepared.original_size == size


def test_a_very_thin_strip_keeps_one_row() -> None:
    """1 × 5000 pixels would be rounded down to no row at all."""
    prepared = prepare(np.zeros((1, 5000, 3), np.uint8), STANDARD)
    assert prepared.size[0] == 1
    assert prepared.tensor.isfinite().all()


def test_batches_pad_with_zeros_to_the_largest() -> None:
    """Each picture lies at the top left; the rest is zero."""
    batch, sizes = collate([torch.ones(3, 10, 40), torch.ones(3, 33, 5)], 32)
    assert batch.shape == (2, 3, 64, 64)
    assert sizes == [(10, 40), (33, 5)]
    assert batch.sum() == 3 * (400 + 165)


def test_the_longer_side_limits_the_scale() -> None:
    """800 for the shorter side, unless the longer one would exceed 1333."""
    assert scale_for((400, 400), STANDARD) == 2.0
    assert scale_for((400, 1000), STANDARD) == 1.333
