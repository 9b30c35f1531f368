"""Noise, waves and filters."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from segcli.data import textures


def stream(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def test_wave_is_a_sine() -> None:
    """The table follows NumPy's sine, left of zero too."""
    turns = np.linspace(-3, 3, 501, dtype=np.float32)
    assert np.abs(textures.wave(turns) - np.sin(2 * np.pi * turns)).max() < 0.004


@pytest.mark.parametrize(
    ("size", "cell"),
    [
        pytest.param((1, 1), (5, 5), id="one-pixel"),
        pytest.param((7, 300), (1.6, 34), id="stretched"),
        pytest.param((40, 30), (100, 100), id="cells-larger-than-the-field"),
        pytest.param((40, 30), (0.5, 0.5), id="cells-smaller-than-a-pixel"),
    ],
)
def test_noise_stays_in_range(size: tuple[int, int], cell: tuple[float, float]) -> None:
    """0..1, float32, of the size asked for, whatever the cells."""
    found = textures.noise(stream(), size, cell)
    assert found.shape == size
    assert found.dtype == np.float32
    assert 0 <= found.min() <= found.max() <= 1


def test_noise_is_smooth_and_uneven() -> None:
    """Neighbours differ by little, far pixels by much."""
    found = textures.clouds(stream(1), (128, 128), 40, 3)
    assert np.abs(np.diff(found, axis=1)).max() < 0.12
    assert found.std() > 0.08


def test_grains_are_about_normal() -> None:
    """Mean 0, deviation 1, no pattern from row to row."""
    found = textures.grains(stream(2), (200, 210))
    assert abs(found.mean()) < 0.02
    assert found.std() == pytest.approx(1, abs=0.02)
    assert abs(np.corrcoef(found[:-1].ravel(), found[1:].ravel())[0, 1]) < 0.02


def test_soften_is_a_box_filter() -> None:
    """One pass is OpenCV's mean filter, two passes keep the sum away from the border."""
    values = np.zeros((30, 30), np.uint8)
    values[10:20, 12:18] = 16
    once = textures.soften(values, 2, 1)
    reference = cv2.blur(values.astype(np.float64), (5, 5), borderType=cv2.BORDER_CONSTANT)
    assert once == pytest.approx(reference, abs=1e-5)
    assert textures.soften(values, 2).sum() == pytest.approx(values.sum(), rel=1e-5)


def test_smooth_step_ends() -> None:
    """Flat at both ends, one half in the middle."""
    found = textures.smooth_step(np.array([-1, 2, 3, 4, 9], np.float32), 2, 4)
    assert found.tolist() == [0, 0, 0.5, 1, 1]
