"""Scenes, their surfaces and their grounds."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from segcli.data import scenes
from segcli.data.backgrounds import blend, expose, ground, light
from segcli.data.scenes import CLASS_NAMES, KINDS, SIZE, Kind, Scene, draw_scene, windows
from segcli.data.shapes import Pose, rasterise

KIND_ROWS = [pytest.param(kind, id=kind.name) for kind in KINDS]


def stream(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


@pytest.fixture(scope="module")
def drawn() -> list[Scene]:
    """Some scenes that the tests only read."""
    return [draw_scene(stream(seed)) for seed in range(12)]


def test_scene_is_consistent(drawn: list[Scene]) -> None:
    """Fields fit each other; visible parts are disjoint, never tiny, and no larger than the whole."""
    for scene in drawn:
        count = len(scene.labels)
        assert scene.image.shape == (*SIZE, 3)
        assert scene.image.dtype == np.uint8
        assert scenes.LEAST_OBJECTS <= count <= scenes.MOST_OBJECTS
        assert scene.visible.shape == (count, *SIZE)
        assert scene.visible.sum(axis=0).max() == 1
        seen = scene.visible.sum(axis=(1, 2))
        assert seen.min() >= scenes.LEAST_VISIBLE
        assert (seen <= scene.whole_areas).all()
        hidden = 1 - seen / scene.whole_areas
        assert hidden.max() <= scenes.HIDDEN[1] + 1e-9
        assert scene.labels.min() >= 0
        assert scene.labels.max() < len(CLASS_NAMES)


def test_scene_depends_on_its_stream_alone() -> None:
    """Equal streams draw equal scenes, also after other work of NumPy's global generator; others differ."""
    first = draw_scene(stream(5))
    np.random.default_rng().random(10)
    again, other = draw_scene(stream(5)), draw_scene(stream(6))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.visible, again.visible)
    assert not np.array_equal(first.image, other.image)


def test_threads_do_not_change_a_scene() -> None:
    """OpenCV's number of threads leaves every pixel as it is."""
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        one = draw_scene(stream(8))
        cv2.setNumThreads(4)
        four = draw_scene(stream(8))
    finally:
        cv2.setNumThreads(before)
    assert np.array_equal(one.image, four.image)


def test_pixels_are_those_of_this_version() -> None:
    """A change of the pictures is a change of every dataset made with the same seed: do it knowingly.

    Sums instead of a hash, so that a last-bit difference of another machine would show as small.
    """
    scene = draw_scene(stream(2024))
    assert scene.visible.sum(axis=(1, 2)).tolist() == [426, 2988, 458, 640, 1888, 2447, 500, 1759]
    assert scene.image.astype(np.int64).sum() == pytest.approx(36_851_124, abs=50)


def test_objects_are_where_their_masks_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ground, light, noise and shadow, exactly the masks' pixels and their soft rims are painted."""
    monkeypatch.setattr(scenes, "ground", lambda _rng, size: np.zeros((*size, 3), np.float32))
    monkeypatch.setattr(scenes, "add_clutter", lambda *_: None)
    monkeypatch.setattr(scenes, "light", lambda _rng, size: np.ones((*size, 3), np.float32))
    monkeypatch.setattr(scenes, "expose", lambda picture, _rng: np.rint(picture).astype(np.uint8))
    scene = draw_scene(stream(3))
    painted = scene.image.max(axis=2) > 0
    union = scene.visible.any(axis=0)
    assert painted[union].mean() > 0.999
    rim = cv2.dilate(union.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert not painted[~rim].any()


@pytest.mark.parametrize("kind", KIND_ROWS)
@pytest.mark.parametrize("scale", [9.0, 45.0])
def test_surface_is_finite_and_spread(kind: Kind, scale: float) -> None:
    """Every material keeps near its two shades, in float32, small or large."""
    rng = stream(4)
    sprite = rasterise(kind.outline(rng), Pose(scale, 0.2), margin=8)
    surface = kind.surface(sprite, rng)
    for field in (surface.shade, surface.gloss):
        assert field.dtype == np.float32
        assert field.shape == sprite.coverage.shape
        assert np.isfinite(field).all()
    assert 0.1 < surface.shade[sprite.mask].mean() < 0.9
    assert surface.shade[sprite.mask].std() > 0.05
    assert surface.gloss.min() >= 0
    assert surface.gloss.max() <= 1


@pytest.mark.parametrize(
    ("corner", "here", "there"),
    [
        pytest.param((10, 20), (20, 24, 10, 16), (0, 4, 0, 6), id="inside"),
        pytest.param((-2, -1), (0, 3, 0, 4), (1, 4, 2, 6), id="over-the-top-left"),
        pytest.param((317, 255), (255, 256, 317, 320), (0, 1, 0, 3), id="over-the-bottom-right"),
        pytest.param((400, 10), (10, 14, 400, 400), (0, 4, 0, 0), id="right-of-it"),
        pytest.param((-50, 10), (10, 14, 0, 0), (0, 4, 50, 50), id="left-of-it"),
    ],
)
def test_windows(corner: tuple[int, int], here: tuple[int, ...], there: tuple[int, ...]) -> None:
    """The common part of a canvas of 4 × 6 pixels and the picture, in both frames; empty where they miss."""
    found = windows(corner, (4, 6))
    flat = [tuple(v for s in part for v in (s.start, s.stop)) for part in found]
    assert flat == [here, there]
    picture, canvas = np.zeros(SIZE), np.zeros((4, 6))
    assert picture[found[0]].shape == canvas[found[1]].shape


def test_grounds_and_light() -> None:
    """Every material and light gives finite, bright enough float32; light is uneven in every picture."""
    rng = stream(9)
    for _ in range(24):
        picture = ground(rng, (64, 80))
        assert picture.shape == (64, 80, 3)
        assert picture.dtype == np.float32
        assert 20 < picture.mean() < 235
        factors = light(rng, (64, 80))
        assert factors.dtype == np.float32
        assert factors.min() > 0.2
    full = light(rng, SIZE)[..., 1]
    assert full.max() / full.min() > 1.3


def test_blend_ends_are_the_pair() -> None:
    """Shade 0 and 1, and what lies beyond, are the dark and the light colour."""
    shade = np.array([[-1, 0, 0.5, 1, 2]], np.float32)
    found = blend(shade, ((0, 10, 20), (100, 110, 220)))
    assert found[0].tolist() == [
        [0, 10, 20],
        [0, 10, 20],
        [50, 60, 120],
        [100, 110, 220],
        [100, 110, 220],
    ]


def test_expose_adds_noise_and_clips() -> None:
    """Dark stays dark, overexposed is 255, grey keeps its mean and gets a few levels of noise."""
    picture = np.full((64, 64, 3), 120, np.float32)
    found = expose(picture, stream(3))
    assert found.dtype == np.uint8
    assert found.mean() == pytest.approx(120, abs=1)
    assert 2 < found.astype(float).std() < 9
    assert expose(picture * 0, stream(3)).mean() < 3
    assert (expose(picture * 9, stream(3)) == 255).all()
