"""Objects as tight crops: the same pixels as masks of the whole picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segcli.annotations import Annotation, Picture
from segcli.data.coco import read_coco
from segcli.data.crops import Objects, crop_of_polygons, crop_of_runs, objects_of, tight
from segcli.masks import Masks


def _full(objects: Objects, size: tuple[int, int]) -> np.ndarray:
    """Bool (G, H, W)."""
    dense = np.zeros((len(objects), *size), bool)
    for plane, crop, (x, y) in zip(dense, objects.crops, objects.corners, strict=True):
        plane[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
    return dense


def _assert_as_whole(annotation: Annotation, size: tuple[int, int]) -> None:
    """Against pycocotools on the whole picture."""
    expected = annotation.mask(size).full(0)
    picture = Picture(1, "a", None, size, (annotation,))
    objects = objects_of(picture)
    if not expected.any():
        assert len(objects) == 0
        return
    np.testing.assert_array_equal(_full(objects, size)[0], expected)
    crop = objects.crops[0]
    assert crop[0].any()
    assert crop[-1].any()
    assert crop[:, 0].any()
    assert crop[:, -1].any()


@pytest.mark.parametrize("name", ["coco80/instances.json", "nuclei400/val.json"])
def test_real_objects(shared: Callable[[str], Path], name: str) -> None:
    """Every object of coco80 (polygons) and nuclei400 (run lengths), pixel by pixel."""
    checked = 0
    for picture in read_coco(shared(f"data/{name}")).pictures:
        single = [a for a in picture.annotations if not a.iscrowd]
        objects = objects_of(picture)
        whole = [a.mask(picture.size).crop(0) for a in single]
        whole = [w for w in whole if w[0].size]
        assert len(objects) == len(whole)
        for crop, corner, (mask, xy) in zip(objects.crops, objects.corners, whole, strict=True):
            np.testing.assert_array_equal(crop, mask)
            assert tuple(corner) == xy
            checked += 1
    assert checked > 600


def test_random_polygons() -> None:
    """Tiny and huge ones, with decimals that pycocotools rounds, in several parts, sticking out on every side."""
    rng = np.random.default_rng(0)
    for number in range(300):
        size = (int(rng.integers(1, 90)), int(rng.integers(1, 90)))
        parts = []
        for _ in range(int(rng.integers(1, 4))):
            centre = rng.random(2) * size[::-1]
            points = centre + rng.normal(size=(int(rng.integers(3, 12)), 2)) * rng.choice(
                [1, 8, 60]
            )
            parts.append(np.round(points, 1) if number % 2 else points)
        box = np.zeros(4)
        _assert_as_whole(Annotation(0, 0, box, 0.0, polygons=tuple(parts)), size)


@pytest.mark.parametrize(
    "corners",
    [
        [[-9, -9], [-2, -9], [-2, -2]],
        [[100, 5], [120, 5], [120, 9]],
        [[5, 5], [5, 5], [5, 5]],
        [[0, 3], [40, 3], [20, 3]],
    ],
    ids=["outside, left", "outside, right", "a point", "a line"],
)
def test_polygons_that_cover_nothing(corners: list[list[float]]) -> None:
    """Are no objects, as with pycocotools."""
    polygons = (np.array(corners, np.float64),)
    _assert_as_whole(Annotation(0, 0, np.zeros(4), 0.0, polygons=polygons), (30, 40))
    assert crop_of_polygons(polygons, (30, 40)) is None


@pytest.mark.parametrize(
    "mask",
    [
        np.zeros((4, 5), bool),
        np.ones((4, 5), bool),
        np.eye(4, 5).astype(bool),
        np.pad(np.ones((1, 1), bool), ((3, 0), (4, 0))),
        np.array([[0, 1, 0], [1, 0, 1], [1, 0, 0]], bool),
    ],
    ids=["empty", "all", "diagonal", "last pixel", "runs that meet at a column's end"],
)
def test_run_lengths(mask: np.ndarray) -> None:
    """Against the mask they were made of."""
    found = crop_of_runs(Masks.from_dense(mask[None]).runs(0), mask.shape)
    expected = tight(mask, 0, 0)
    if expected is None:
        assert found is None
    else:
        assert found is not None
        np.testing.assert_array_equal(found[0], expected[0])
        assert found[1:] == expected[1:]


def test_random_run_lengths() -> None:
    """Noise of any density, runs over several columns among them."""
    rng = np.random.default_rng(1)
    for _ in range(200):
        mask = rng.random(rng.integers(1, 12, 2)) < rng.random()
        found = crop_of_runs(Masks.from_dense(mask[None]).runs(0), mask.shape)
        canvas = np.zeros_like(mask)
        if found is not None:
            crop, x, y = found
            canvas[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
        np.testing.assert_array_equal(canvas, mask)


def test_no_objects() -> None:
    """Give empty arrays of the right shapes."""
    objects = objects_of(Picture(1, "a", None, (5, 6)))
    assert objects.boxes().shape == (0, 4)
    assert objects.cut((1, 1, 3, 3)).labels.shape == (0,)
    assert len(objects.take(np.zeros(0, np.int64))) == 0


def test_windows_cut_as_slices_do() -> None:
    """Random objects and windows, against slices of full masks; boxes are tight again."""
    rng = np.random.default_rng(2)
    for _ in range(100):
        dense = rng.random((4, 20, 30)) < 0.01
        objects = Objects.of([tight(d, 0, 0) for d in dense], [1, 2, 3, 4])
        x0, y0 = int(rng.integers(0, 29)), int(rng.integers(0, 19))
        x1, y1 = int(rng.integers(x0 + 1, 31)), int(rng.integers(y0 + 1, 21))
        cut = objects.cut((x0, y0, x1, y1))
        expected = dense[:, y0:y1, x0:x1]
        seen = expected.any(axis=(1, 2))
        assert cut.labels.tolist() == (np.flatnonzero(seen) + 1).tolist()
        np.testing.assert_array_equal(_full(cut, (y1 - y0, x1 - x0)), expected[seen])
        np.testing.assert_array_equal(
            cut.boxes(),
            Masks.from_dense(expected[seen]).boxes() if seen.any() else np.zeros((0, 4)),
        )
