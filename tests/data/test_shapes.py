"""Outlines and their rasterisation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image, ImageDraw

from segcli.data.scenes import KINDS, Kind
from segcli.data.shapes import Pose, area, circle, direction, rasterise, round_off

SQUARE = (np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]),)
KIND_ROWS = [pytest.param(kind, id=kind.name) for kind in KINDS]


def stream(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


@pytest.mark.parametrize("kind", KIND_ROWS)
@pytest.mark.parametrize("turn", [0.0, 0.13, 0.5])
def test_mask_has_the_outlines_area(kind: Kind, turn: float) -> None:
    """The rasterised area is the polygon's, holes taken off, within its rim's error."""
    loops = kind.outline(stream(1))
    sprite = rasterise(loops, Pose(40.0, turn, 0.9, (0.3, 0.8)), margin=3)
    expected = area(loops) * 40 * 40 * 0.9
    assert sprite.pixels == np.count_nonzero(sprite.mask) == pytest.approx(expected, rel=0.03)
    assert sprite.coverage.sum() / 16 == pytest.approx(expected, rel=0.01)
    rim = np.ones_like(sprite.mask)
    rim[3:-3, 3:-3] = False
    assert not sprite.coverage[rim].any()


@pytest.mark.parametrize("kind", KIND_ROWS)
def test_mask_agrees_with_pil(kind: Kind) -> None:
    """PIL's polygons, drawn eight times finer, give the same mask but for the rim."""
    loops = kind.outline(stream(2))
    sprite = rasterise(loops, Pose(30.0, 0.0), margin=2)
    h, w = sprite.coverage.shape
    canvas = Image.new("L", (w * 8, h * 8), 0)
    pen = ImageDraw.Draw(canvas)
    for number, loop in enumerate(loops):
        points = (loop * 30.0 + np.array(sprite.origin)) * 8 - 0.5
        pen.polygon([tuple(p) for p in points.tolist()], fill=0 if number else 1)
    mask = np.asarray(canvas).reshape(h, 8, w, 8).mean(axis=(1, 3)) >= 0.5
    differing = np.count_nonzero(mask != sprite.mask)
    assert differing <= 0.02 * sprite.pixels


@pytest.mark.parametrize(
    ("shift", "row", "pixels"),
    [
        pytest.param((0.0, 0.0), [0, 16, 16, 16, 16, 0], 16, id="on-the-grid"),
        pytest.param((0.5, 0.0), [0, 8, 16, 16, 16, 8, 0], 20, id="half-a-pixel-right"),
        pytest.param((0.25, 0.0), [0, 12, 16, 16, 16, 4, 0], 16, id="a-quarter-right"),
    ],
)
def test_square_covers_what_it_should(
    shift: tuple[float, float], row: list[int], pixels: int
) -> None:
    """A square of 4 × 4 pixels, worked out by hand; half a pixel is enough for the mask."""
    sprite = rasterise(SQUARE, Pose(2.0, 0.0, 1.0, shift), margin=1)
    assert sprite.coverage.tolist() == [[0] * len(row), *[row] * 4, [0] * len(row)]
    assert sprite.pixels == pixels


def test_own_frame_turns_with_the_shape() -> None:
    """`u` and `v` undo turn, squeeze, scale and shift: pixels inside a turned square have |u|, |v| ≤ 1."""
    sprite = rasterise(SQUARE, Pose(20.0, 0.11, 0.8, (0.4, 0.6)), margin=4)
    inside = np.maximum(np.abs(sprite.u), np.abs(sprite.v)) <= 1
    assert np.count_nonzero(inside != sprite.mask) <= 0.05 * sprite.pixels
    x, y = sprite.origin
    assert abs(sprite.u[y, x]) < 0.05
    assert abs(sprite.v[y, x]) < 0.07


def test_holes() -> None:
    """Washers and gears are open in the middle; the others are one loop."""
    counts = {kind.name: len(kind.outline(stream(0))) for kind in KINDS}
    assert counts == {"washer": 2, "gear": 2, "bolt": 1, "star": 1, "leaf": 1}


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        pytest.param(0.0, (1.0, 0.0), id="right"),
        pytest.param(0.25, (0.0, 1.0), id="down"),
        pytest.param(0.125, (math.sqrt(0.5), math.sqrt(0.5)), id="between"),
    ],
)
def test_direction(turn: float, expected: tuple[float, float]) -> None:
    """Turns begin to the right and go clockwise on the screen (y down)."""
    assert direction(turn) == pytest.approx(expected, abs=1e-8)


def test_areas_by_hand() -> None:
    """A square of side 2, a ring of two squares, a many-sided circle, a square with its corners cut."""
    assert area(SQUARE) == pytest.approx(4)
    assert area((SQUARE[0], SQUARE[0][::-1] / 2)) == pytest.approx(3)
    assert area((circle(2.0, 400),)) == pytest.approx(4 * math.pi, rel=1e-3)
    assert area((round_off(SQUARE[0]),)) == pytest.approx(3.5)
