"""Sets of pixels as spans against dense arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from segcli import rle_sets
from segcli.masks import Masks
from segcli.rle_sets import Spans

Dense = NDArray[np.bool_]


def spans_of(dense: Dense) -> Spans:
    """Of bool (N, H, W)."""
    return Spans.from_masks(Masks.from_dense(dense), (0, 0), (dense.shape[1], dense.shape[2]))


def dense_of(spans: Spans) -> Dense:
    masks = spans.to_masks()
    return np.array([masks.full(i) for i in range(len(masks))]).reshape(-1, *spans.size)


def check_form(spans: Spans) -> None:
    """What the class promises: sorted, apart, none empty, each within one column."""
    height = spans.size[0]
    assert spans.offsets[0] == 0
    assert spans.offsets[-1] == len(spans.starts) == len(spans.ends)
    assert np.all(spans.starts < spans.ends)
    assert np.array_equal(spans.starts // height, (spans.ends - 1) // height)
    for a, b in zip(spans.offsets[:-1], spans.offsets[1:], strict=True):
        assert np.all(spans.ends[a:b][:-1] <= spans.starts[a:b][1:])


def random_masks(height: int, width: int, seed: int, count: int = 5) -> Dense:
    """Masks from empty to full, one of each density."""
    density = np.linspace(0, 1, count)[:, None, None]
    return np.random.default_rng(seed).random((count, height, width)) < density


SIZES = [(1, 1), (1, 40), (40, 1), (7, 5), (16, 16), (2, 31)]
sizes = st.tuples(st.integers(1, 14), st.integers(1, 14))
seeds = st.integers(0, 2**32 - 1)


def test_no_masks() -> None:
    """No sets give no results, of the right shapes."""
    none = Spans.from_masks(Masks.empty((3, 4)), (1, 0), (5, 6))
    no_sets = np.zeros(0, np.int64)
    assert len(none) == 0
    assert none.size == (5, 6)
    assert none.area().shape == (0,)
    assert none.boxes().shape == (0, 4)
    assert none.areas_within(no_sets, np.array([0, 0, 6, 5])).shape == (0,)
    assert none.intersection_areas(no_sets, no_sets).shape == (0,)
    assert len(none.union(no_sets, 0)) == 0
    assert len(none.to_masks()) == 0
    assert len(none[no_sets]) == 0
    assert len(Spans.concatenate([], (5, 6))) == 0


@pytest.mark.parametrize("size", SIZES)
def test_against_dense_masks(size: tuple[int, int]) -> None:
    """Area, boxes, shared pixels and unions of empty, full and random masks, also of one row or column."""
    dense = random_masks(*size, seed=1)
    spans = spans_of(dense)
    check_form(spans)
    everything = np.arange(5)
    left, right = np.repeat(everything, 5), np.tile(everything, 5)
    group = np.array([2, 0, 2, 0, 3])
    united = spans.union(group, 4)
    check_form(united)

    assert np.array_equal(dense_of(spans), dense)
    assert np.array_equal(spans.area(), dense.sum(axis=(1, 2)))
    assert np.array_equal(spans.boxes(), Masks.from_dense(dense).boxes())
    assert np.array_equal(
        spans.intersection_areas(left, right), (dense[left] & dense[right]).sum(axis=(1, 2))
    )
    expected = [dense[group == g].any(axis=0) for g in range(4)]
    assert np.array_equal(dense_of(united), np.array(expected))


def test_run_lengths_are_canonical() -> None:
    """Runs over several columns come back as one, as `Masks` writes them."""
    masks = Masks.from_dense(random_masks(6, 9, seed=3))
    again = Spans.from_masks(masks, (0, 0), (6, 9)).to_masks()
    assert np.array_equal(again.counts, masks.counts)
    assert np.array_equal(again.offsets, masks.offsets)
    assert again.counts.dtype == np.uint32


@settings(max_examples=80, deadline=None)
@given(sizes, st.tuples(*[st.integers(0, 4)] * 4), seeds)
def test_moved_into_a_larger_picture(
    size: tuple[int, int], rim: tuple[int, int, int, int], seed: int
) -> None:
    """A part's masks lie where the part lies, and nowhere else."""
    left, top, right, bottom = rim
    dense = random_masks(*size, seed)
    picture = np.pad(dense, ((0, 0), (top, bottom), (left, right)))
    spans = Spans.from_masks(
        Masks.from_dense(dense), (left, top), (picture.shape[1], picture.shape[2])
    )
    check_form(spans)
    assert np.array_equal(dense_of(spans), picture)
    assert np.array_equal(spans.to_masks().counts, Masks.from_dense(picture).counts)


@pytest.mark.parametrize("origin", [(-1, 0), (0, -1), (3, 0), (0, 4)])
def test_a_part_outside_its_picture_is_refused(origin: tuple[int, int]) -> None:
    """Rather than wrapped into the next column."""
    with pytest.raises(ValueError, match="not within 6 × 7"):
        Spans.from_masks(Masks.from_dense(np.ones((1, 4, 4), bool)), origin, (7, 6))


@settings(max_examples=80, deadline=None)
@given(sizes, st.tuples(*[st.integers(-2, 16)] * 4), seeds)
def test_pixels_within_a_rectangle(
    size: tuple[int, int], rectangle: tuple[int, int, int, int], seed: int
) -> None:
    """Counted as on the dense mask; a rectangle may lie beside the picture, or have no inside."""
    dense = random_masks(*size, seed)
    x0, y0, x1, y1 = rectangle
    inside = np.zeros(size, bool)
    inside[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = True
    sets = np.array([4, 0, 3, 3])
    found = spans_of(dense).areas_within(sets, np.array(rectangle))
    assert np.array_equal(found, (dense & inside).sum(axis=(1, 2))[sets])


def test_a_rectangle_for_each_set() -> None:
    """Rows of rectangles belong to rows of sets."""
    spans = spans_of(np.ones((2, 8, 9), bool))
    rectangles = np.array([[0, 0, 3, 2], [4, 1, 9, 8]])
    assert spans.areas_within(np.array([1, 0]), rectangles).tolist() == [6, 35]


@settings(max_examples=80, deadline=None)
@given(sizes, seeds)
def test_unions_and_shared_pixels_fit_together(size: tuple[int, int], seed: int) -> None:
    """|A| + |B| = |A ∪ B| + |A ∩ B|; a union of two unions is the union of all, in any order."""
    dense = random_masks(*size, seed)
    spans = spans_of(dense)
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 5, 2)
    both = spans[np.array([a, b])].union(np.zeros(2, np.int64), 1)
    shared = spans.intersection_areas(np.array([a]), np.array([b]))
    assert spans.area()[[a, b]].sum() == both.area()[0] + shared[0]

    order = rng.permutation(5)
    at_once = spans[order].union(np.zeros(5, np.int64), 1)
    in_steps = spans.union(np.array([0, 1, 0, 1, 1]), 2).union(np.zeros(2, np.int64), 1)
    assert np.array_equal(at_once.starts, in_steps.starts)
    assert np.array_equal(at_once.ends, in_steps.ends)
    check_form(at_once)


def test_sets_are_picked_and_put_together() -> None:
    """In the order asked for, also twice; parts follow one another."""
    dense = random_masks(6, 5, seed=2)
    spans = spans_of(dense)
    assert np.array_equal(dense_of(spans[np.array([3, 0, 3])]), dense[[3, 0, 3]])
    parts = [spans[np.array([1, 4])], spans[np.zeros(0, np.int64)], spans[np.array([2])]]
    assert np.array_equal(dense_of(Spans.concatenate(parts, (6, 5))), dense[[1, 4, 2]])


def test_many_pairs_are_compared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound on working memory changes no result."""
    dense = random_masks(9, 7, seed=4)
    spans = spans_of(dense)
    left, right = np.repeat(np.arange(5), 5), np.tile(np.arange(5), 5)
    expected = spans.intersection_areas(left, right)
    monkeypatch.setattr(rle_sets, "AT_ONCE", 4)
    assert np.array_equal(spans.intersection_areas(left, right), expected)


def test_pixel_numbers_beyond_32_bits() -> None:
    """Two hundred sets of a picture of 300 million pixels: numbers in one row go far beyond 2³²."""
    mask = Masks.from_crops([(np.ones((5, 4), bool), (2, 3))] * 200, (20, 20))
    spans = Spans.from_masks(mask, (14_980, 19_980), (20_000, 15_000))
    last = np.array([199])
    assert spans.boxes()[199].tolist() == [14_982, 19_983, 14_986, 19_988]
    assert spans.intersection_areas(last, np.array([0])).tolist() == [20]
    assert spans.union(np.arange(200) // 100, 2).area().tolist() == [20, 20]
