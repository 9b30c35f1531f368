"""Tones: each knob against its definition."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
from torchvision.transforms import functional as reference

from segcli.data.augment import ColorChange
from segcli.data.color import recolored

IMAGE = np.random.default_rng(0).integers(60, 180, (20, 30, 3), dtype=np.uint8)


def test_no_change_is_no_change() -> None:
    """But a new array; a view does too."""
    result = recolored(IMAGE, ColorChange())
    np.testing.assert_array_equal(result, IMAGE)
    assert not np.shares_memory(result, IMAGE)
    np.testing.assert_array_equal(recolored(IMAGE[:, ::-1], ColorChange()), IMAGE[:, ::-1])


@pytest.mark.parametrize("factor", [0.75, 1.2])
@pytest.mark.parametrize("knob", ["brightness", "contrast", "saturation"])
def test_as_torchvision(knob: str, factor: float) -> None:
    """Whose results are rounded down instead of to the nearest."""
    expected = getattr(reference, f"adjust_{knob}")(
        torch.from_numpy(IMAGE).permute(2, 0, 1), factor
    )
    found = recolored(IMAGE, ColorChange(**{knob: factor})).astype(int)
    assert np.abs(found - expected.permute(1, 2, 0).numpy().astype(int)).max() <= 2


def test_values_beyond_the_range_are_cut_off() -> None:
    """Not wrapped around."""
    image = np.array([[[0, 128, 255]]], np.uint8)
    assert recolored(image, ColorChange(brightness=1.25)).tolist() == [[[0, 160, 255]]]


def test_hue_turns_colours_and_leaves_grey() -> None:
    """A third of the circle makes red greenish; grey stays grey, and lightness (luma) stays."""
    grey = np.full((2, 2, 3), 90, np.uint8)
    np.testing.assert_array_equal(recolored(grey, ColorChange(hue=0.3)), grey)
    muted = np.array([[[140, 100, 100]]], np.uint8)
    for turn in (0.04, -0.04, 1 / 3):
        turned = recolored(muted, ColorChange(hue=turn))[0, 0]
        luma = np.array([0.299, 0.587, 0.114])
        assert luma @ turned == pytest.approx(luma @ muted[0, 0], abs=1.0)
        hue = colorsys.rgb_to_hsv(*turned)[0]
        distance = min(hue, 1 - hue)
        assert abs(distance - abs(turn)) < 0.1
