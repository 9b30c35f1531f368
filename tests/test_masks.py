"""Masks against dense arrays and pycocotools."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from segcli.errors import DataError
from segcli.masks import Masks


def coco_rle(dense: NDArray[np.bool_]) -> dict[str, Any]:
    """The RLE of pycocotools of a bool (H, W) mask, its counts as text."""
    entry = coco_mask.encode(np.asfortranarray(dense, dtype=np.uint8))
    return {"size": entry["size"], "counts": entry["counts"].decode("ascii")}


def random_stack(seed: int, count: int, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Bool (N, H, W): noise, one empty mask, one full mask."""
    rng = np.random.default_rng(seed)
    dense = rng.random((count, *size)) < rng.choice([0.05, 0.5, 0.95], (count, 1, 1))
    if count > 1:
        dense[0], dense[1] = False, True
    return dense


def test_no_masks() -> None:
    """None at all: length 0, and every answer is an empty array of its type."""
    masks = Masks.empty((4, 6))

    assert len(masks) == 0
    assert masks.area().shape == (0,)
    assert masks.area().dtype == np.int64
    assert masks.boxes().shape == (0, 4)
    assert masks.boxes().dtype == np.float32
    assert len(masks[[]]) == 0
    assert len(masks[:]) == 0
    assert masks[np.zeros(0, bool)].size == (4, 6)


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(Masks.from_runs([], (4, 6)), id="runs"),
        pytest.param(Masks.from_crops([], (4, 6)), id="crops"),
        pytest.param(Masks.from_coco([], (4, 6)), id="coco"),
        pytest.param(Masks.from_dense(np.zeros((0, 4, 6), bool)), id="dense"),
    ],
)
def test_nothing_makes_no_masks(made: Masks) -> None:
    """Every way of making masks accepts none of them and keeps the picture's size."""
    assert len(made) == 0
    assert made.size == (4, 6)
    assert (made.counts.dtype, made.offsets.dtype) == (np.uint32, np.int64)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 13), st.integers(1, 13))
def test_everything_equals_pycocotools(seed: int, count: int, height: int, width: int) -> None:
    """RLE text, area, tight box, full mask and crop agree with pycocotools and the dense mask."""
    dense = random_stack(seed, count, (height, width))
    masks = Masks.from_dense(dense)

    for i, truth in enumerate(dense):
        entry = coco_rle(truth)
        assert masks.coco(i) == entry
        assert masks.area()[i] == coco_mask.area(entry)
        x, y, w, h = coco_mask.toBbox(entry)
        assert masks.boxes()[i].tolist() == [x, y, x + w, y + h]
        assert np.array_equal(masks.full(i), truth)
        crop, (left, top) = masks.crop(i)
        canvas = np.zeros((height, width), bool)
        canvas[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
        assert np.array_equal(canvas, truth)
        assert crop.shape == (h, w)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 11), st.integers(1, 11))
def test_coco_round_trip(seed: int, count: int, height: int, width: int) -> None:
    """RLE by pycocotools, compressed or as a list, becomes masks and comes back the same."""
    dense = random_stack(seed, count, (height, width))
    entries = [coco_rle(d) for d in dense]
    masks = Masks.from_coco(entries, (height, width))
    plain = [{"size": [height, width], "counts": masks.runs(i).tolist()} for i in range(count)]

    assert [masks.coco(i) for i in range(count)] == entries
    again = Masks.from_coco(plain, (height, width))
    assert np.array_equal(again.counts, masks.counts)
    assert np.array_equal(again.offsets, masks.offsets)


def test_bytes_and_whole_floats_are_counts() -> None:
    """Counts as bytes (pycocotools' own) and as floats without a fraction (some writers') are read."""
    dense = np.eye(3, dtype=bool)
    as_bytes = coco_mask.encode(np.asfortranarray(dense, dtype=np.uint8))
    as_floats = {"size": [3, 3], "counts": [0.0, 1.0, 3.0, 1.0, 3.0, 1.0]}
    masks = Masks.from_coco([as_bytes, as_floats], (3, 3))

    assert np.array_equal(masks.full(0), dense)
    assert np.array_equal(masks.full(1), dense)


def test_runs_of_nothing_in_between() -> None:
    """Runs of length 0 in the middle, which COCO allows, change nothing but the text."""
    entry = {"size": [3, 3], "counts": [2, 1, 0, 2, 0, 0, 4]}
    masks = Masks.from_coco([entry], (3, 3))
    truth = np.array([[0, 1, 0], [0, 1, 0], [1, 0, 0]], bool)

    assert np.array_equal(masks.full(0), truth)
    assert masks.area().tolist() == [3]
    assert masks.boxes().tolist() == [[0, 0, 2, 3]]
    assert np.array_equal(masks.crop(0)[0], truth[:, :2])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        pytest.param({}, "not an RLE", id="no keys"),
        pytest.param({"size": [3, 3]}, "not an RLE", id="no counts"),
        pytest.param({"size": 3, "counts": [9]}, "not an RLE", id="size no list"),
        pytest.param({"size": ["a", 3], "counts": [9]}, "not an RLE", id="size no numbers"),
        pytest.param([1, 2], "not an RLE", id="no dict"),
        pytest.param({"size": [3, 4], "counts": [12]}, r"size \[3, 4\].*\[3, 3\]", id="other size"),
        pytest.param({"size": [3], "counts": [9]}, r"size \[3\]", id="size of one number"),
        pytest.param({"size": [3, 3], "counts": [8]}, "covers 8 pixels.* has 9", id="too short"),
        pytest.param({"size": [3, 3], "counts": [5, 5]}, "covers 10", id="too long"),
        pytest.param({"size": [3, 3], "counts": []}, "covers 0", id="no runs"),
        pytest.param({"size": [3, 3], "counts": ""}, "covers 0", id="no text"),
        pytest.param({"size": [3, 3], "counts": "0 "}, "damaged", id="damaged text"),
        pytest.param({"size": [3, 3], "counts": [10, -1]}, "run lengths", id="negative"),
        pytest.param({"size": [3, 3], "counts": [2**32 + 9]}, "run lengths", id="wraps to 9"),
        pytest.param({"size": [3, 3], "counts": [10**400]}, "expected numbers", id="huge"),
        pytest.param({"size": [3, 3], "counts": [4.5, 4.5]}, "run lengths", id="fractions"),
        pytest.param({"size": [3, 3], "counts": [float("nan")]}, "run lengths", id="nan"),
        pytest.param({"size": [3, 3], "counts": [float("inf")]}, "run lengths", id="infinite"),
        pytest.param({"size": [3, 3], "counts": [[9]]}, "run lengths", id="nested"),
        pytest.param({"size": [3, 3], "counts": [[4], [5, 0]]}, "expected numbers", id="ragged"),
        pytest.param({"size": [3, 3], "counts": None}, "run lengths", id="null"),
        pytest.param({"size": [3, 3], "counts": ["x"]}, "expected numbers", id="words"),
        pytest.param({"size": [3, 3], "counts": {"a": 1}}, "expected numbers", id="a table"),
    ],
)
def test_bad_rle_is_refused(entry: Any, message: str) -> None:
    """An entry that is no mask of this picture is a DataError that says what was found."""
    with pytest.raises(DataError, match=message):
        Masks.from_coco([entry], (3, 3))


@pytest.mark.parametrize(
    ("index", "rows"),
    [
        pytest.param(slice(None), [0, 1, 2, 3], id="all"),
        pytest.param(slice(1, 3), [1, 2], id="slice"),
        pytest.param(slice(None, None, -1), [3, 2, 1, 0], id="reversed"),
        pytest.param(2, [2], id="one"),
        pytest.param(-1, [3], id="from the end"),
        pytest.param([], [], id="none"),
        pytest.param([3, 0, 3], [3, 0, 3], id="list with a repeat"),
        pytest.param(np.array([True, False, False, True]), [0, 3], id="bool"),
        pytest.param(np.array([1, 0], np.int32), [1, 0], id="int array"),
        pytest.param(np.zeros(4, bool), [], id="bool, none true"),
    ],
)
def test_slicing(index: Any, rows: list[int]) -> None:
    """Masks are picked as numpy picks rows."""
    dense = random_stack(3, 4, (6, 5))
    picked = Masks.from_dense(dense)[index]

    assert len(picked) == len(rows)
    for i, row in enumerate(rows):
        assert np.array_equal(picked.full(i), dense[row])


@pytest.mark.parametrize(
    "index", [4, -5, [0, 9], np.ones(3, bool)], ids=["4", "-5", "in a list", "short bool"]
)
def test_slicing_out_of_range(index: Any) -> None:
    """An index that is not there is an IndexError, not an empty answer."""
    with pytest.raises(IndexError):
        Masks.from_dense(random_stack(3, 4, (6, 5)))[index]


def test_frozen() -> None:
    """Fields cannot be set."""
    with pytest.raises(AttributeError):
        Masks.empty((2, 2)).size = (3, 3)  # type: ignore[misc]


def test_crops_at_4k_need_no_canvas() -> None:
    """100 objects on a 4K picture: never a canvas in memory, neither made nor read."""
    size = (2160, 3840)
    disc = np.hypot(*np.mgrid[-20:21, -20:21]) < 20
    places = [(37 * i % 3700, 53 * i % 2100) for i in range(100)]
    tracemalloc.start()
    masks = Masks.from_crops(((disc, xy) for xy in places), size)
    areas, boxes, crops = masks.area(), masks.boxes(), [masks.crop(i) for i in range(100)]
    texts = [masks.coco(i) for i in range(100)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 2_000_000  # one canvas is 8.3 MB
    assert areas.tolist() == [disc.sum()] * 100
    assert boxes[1].tolist() == [38, 54, 37 + 40, 53 + 40]
    assert all(np.array_equal(crop, disc[1:-1, 1:-1]) for crop, _ in crops)
    assert coco_mask.area(texts).tolist() == [disc.sum()] * 100


def test_full_frames_at_4k_stay_small() -> None:
    """20 masks that fill a 4K picture are a few bytes each, and full again when asked."""
    size = (2160, 3840)
    frame = np.ones(size, bool)
    frame[1000:1010, 2000:2010] = False
    masks = Masks.from_crops([(frame, (0, 0))] * 20, size)

    assert masks.counts.nbytes < 20 * 100
    assert masks.area().tolist() == [2160 * 3840 - 100] * 20
    assert np.array_equal(masks.full(19), frame)
    assert masks.boxes()[7].tolist() == [0, 0, 3840, 2160]
