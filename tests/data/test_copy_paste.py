"""Objects of one picture on another: pixels, masks and occlusion."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from segcli.data.augment import Paste
from segcli.data.copy_paste import Source, paste_objects
from segcli.data.crops import Objects, tight

DARK = np.full((40, 60, 3), 10, np.uint8)
BRIGHT = np.full((40, 60, 3), 200, np.uint8)


def _objects(*rects: tuple[int, int, int, int], label: int = 1) -> Objects:
    crops = [(np.ones((y1 - y0, x1 - x0), bool), x0, y0) for x0, y0, x1, y1 in rects]
    return Objects.of(crops, [label] * len(rects))


def _paste(seed: int = 0, **changes: object) -> Paste:
    plain: dict[str, object] = {"flip": False, "jitter": 1.0, "place": (0.0, 0.0), "seed": seed}
    return Paste(**{**plain, **changes})  # type: ignore[arg-type]


def _full(objects: Objects, size: tuple[int, ...]) -> NDArray[np.bool_]:
    dense = np.zeros((len(objects), *size), bool)
    for plane, crop, (x, y) in zip(dense, objects.crops, objects.corners, strict=True):
        plane[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
    return dense


def _seed_that_takes(count: int, of: int) -> int:
    """A seed whose choice is exactly the first `count` of `of` objects."""
    for seed in range(1000):
        chosen = np.random.Generator(np.random.PCG64(seed)).random(of) < 0.5
        if chosen[:count].all() and not chosen[count:].any():
            return seed
    raise AssertionError("no such seed")


def test_nothing_to_paste() -> None:
    """The picture stays what it was."""
    own = _objects((1, 1, 5, 5))
    image, objects = paste_objects(DARK, own, Source(BRIGHT, _objects()), _paste(), 1.0)
    assert image is DARK
    assert objects is own
    nothing = np.random.Generator(np.random.PCG64(_seed_that_takes(0, 3)))
    assert not (nothing.random(3) < 0.5).any()
    source = Source(BRIGHT, _objects((0, 0, 9, 9), (9, 9, 12, 12), (20, 20, 30, 30)))
    image, objects = paste_objects(DARK, own, source, _paste(_seed_that_takes(0, 3)), 1.0)
    assert image is DARK


def test_pixels_and_masks_at_the_same_scale_are_exact() -> None:
    """What is pasted covers what it covers: the object below loses those pixels, and its box stays tight."""
    own = _objects((10, 10, 30, 30))
    source = Source(BRIGHT, _objects((20, 5, 60, 40), label=3))
    image, objects = paste_objects(DARK, own, source, _paste(_seed_that_takes(1, 1)), 1.0)
    assert objects.labels.tolist() == [1, 3]
    assert objects.boxes().tolist() == [[10, 10, 20, 30], [20, 5, 60, 40]]
    expected = DARK.copy()
    expected[5:40, 20:60] = 200
    np.testing.assert_array_equal(image, expected)
    assert DARK.max() == 10  # the input is not written to


def test_an_object_that_vanishes_is_dropped() -> None:
    """And the others keep their order and labels."""
    own = Objects.of(
        [(np.ones((4, 4), bool), 2, 2), (np.ones((4, 4), bool), 30, 30)], labels=[5, 6]
    )
    source = Source(BRIGHT, _objects((0, 0, 10, 10), label=3))
    _, objects = paste_objects(DARK, own, source, _paste(_seed_that_takes(1, 1)), 1.0)
    assert objects.labels.tolist() == [6, 3]


def test_later_objects_cover_earlier_ones() -> None:
    """Masks of one picture do not overlap."""
    source = Source(BRIGHT, _objects((0, 0, 20, 20), (10, 10, 30, 30)))
    _, objects = paste_objects(DARK, _objects(), source, _paste(_seed_that_takes(2, 2)), 1.0)
    dense = _full(objects, DARK.shape[:2])
    assert not (dense[0] & dense[1]).any()
    assert dense[1].sum() == 400
    assert dense[0].sum() == 300


def test_flipped() -> None:
    """Object and place are mirrored."""
    shape = np.array([[1, 0], [1, 1]], bool).repeat(4, 0).repeat(4, 1)
    source = Source(BRIGHT, Objects.of([(shape, 0, 0)], [1]))
    paste = _paste(_seed_that_takes(1, 1), flip=True)
    image, objects = paste_objects(DARK, _objects(), source, paste, 1.0)
    assert objects.boxes().tolist() == [[52, 0, 60, 8]]
    np.testing.assert_array_equal(objects.crops[0], shape[:, ::-1])
    np.testing.assert_array_equal(image[..., 0] == 200, _full(objects, (40, 60))[0])


@pytest.mark.parametrize("place", [(0.0, 0.0), (1.0, 1.0), (0.4, 0.7)])
@pytest.mark.parametrize("ratio", [0.05, 0.3, 0.77, 1.6, 12.0])
def test_scaled(ratio: float, place: tuple[float, float]) -> None:
    """Against the whole other picture, scaled and laid in its place: nearly the same masks, pixels in them."""
    yy, xx = np.mgrid[:50, :70]
    disc = (yy - 20) ** 2 + (xx - 40) ** 2 < 15**2
    found = tight(disc, 0, 0)
    pixels = np.full((50, 70, 3), 200, np.uint8)
    source = Source(pixels, Objects.of([found], [2]))
    paste = _paste(_seed_that_takes(1, 1), place=place)
    image, objects = paste_objects(DARK, _objects(), source, paste, ratio)
    shift = np.array([[place[0] * (60 - 70 * ratio)], [place[1] * (40 - 50 * ratio)]])
    # pixel centres: x' = (x + 0.5) * ratio + shift - 0.5
    matrix = np.hstack((np.eye(2) * ratio, shift + 0.5 * ratio - 0.5))
    whole = cv2.warpAffine(disc.astype(np.float32), matrix, (60, 40), flags=cv2.INTER_LINEAR) > 0.5
    if not len(objects):
        assert whole.sum() <= 4
        return
    mask = _full(objects, (40, 60))[0]
    union = (mask | whole).sum()
    assert (mask ^ whole).sum() <= max(0.06 * union, 4 + 4 * ratio * 30 / 4)
    inner = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    assert (image[inner] > 150).all()
    outside = ~cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
    np.testing.assert_array_equal(image[outside], DARK[outside])


def test_objects_beyond_the_edge_are_cut() -> None:
    """Nothing is pasted outside; random sizes and places, one pixel among them."""
    rng = np.random.default_rng(0)
    for number in range(300):
        size, other = (tuple(int(v) for v in rng.integers(1, 40, 2)) for _ in range(2))
        dense = rng.random((3, *other)) < 0.05
        source = Source(
            rng.integers(0, 256, (*other, 3), dtype=np.uint8),
            Objects.of([tight(d, 0, 0) for d in dense], [1, 2, 3]),
        )
        paste = _paste(number, place=tuple(rng.random(2).tolist()), flip=bool(number % 2))
        image = np.zeros((*size, 3), np.uint8)
        ratio = float(np.exp(rng.uniform(-3, 3)))
        changed, objects = paste_objects(image, _objects(), source, paste, ratio)
        assert changed.shape == image.shape
        boxes = objects.boxes()
        assert (boxes >= 0).all()
        assert (boxes[:, 2:] <= size[::-1]).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert (_full(objects, size).sum(axis=0) <= 1).all()
