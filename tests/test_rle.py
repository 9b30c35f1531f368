"""COCO's run-length strings against pycocotools."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from segcli.errors import DataError
from segcli.rle import decode_counts, encode_counts, runs_of_crop, runs_of_edges


def coco_text(dense: NDArray[np.bool_]) -> str:
    """What pycocotools writes for a bool (H, W) mask."""
    text: bytes = coco_mask.encode(np.asfortranarray(dense, dtype=np.uint8))["counts"]
    return text.decode("ascii")


def naive_runs(dense: NDArray[np.bool_]) -> list[int]:
    """Run lengths counted pixel by pixel."""
    runs, value = [0], False
    for pixel in dense.T.reshape(-1):
        if pixel != value:
            runs.append(0)
            value = not value
        runs[-1] += 1
    return runs


def ring(size: int) -> NDArray[np.bool_]:
    """A square with a hole."""
    dense = np.zeros((size, size), bool)
    dense[1:-1, 1:-1] = True
    dense[2:-2, 2:-2] = False
    return dense


SHAPES = [
    pytest.param(np.zeros((1, 1), bool), id="one empty pixel"),
    pytest.param(np.ones((1, 1), bool), id="one full pixel"),
    pytest.param(np.zeros((5, 3), bool), id="empty"),
    pytest.param(np.ones((5, 3), bool), id="full"),
    pytest.param(np.eye(7, dtype=bool), id="diagonal"),
    pytest.param(ring(9), id="hole"),
    pytest.param(np.ones((1, 40), bool), id="one row"),
    pytest.param(np.ones((40, 1), bool), id="one column"),
    pytest.param(np.arange(600).reshape(20, 30) % 2 == 0, id="stripes"),
]


@pytest.mark.parametrize("dense", SHAPES)
def test_text_equals_pycocotools(dense: NDArray[np.bool_]) -> None:
    """Runs of a crop at the origin, packed, are pycocotools' text; unpacked, the same runs."""
    runs = runs_of_crop(dense, (0, 0), (dense.shape[0], dense.shape[1]))

    assert runs.dtype == np.uint32
    assert runs.tolist() == naive_runs(dense)
    assert encode_counts(runs) == coco_text(dense)
    assert decode_counts(coco_text(dense)).tolist() == runs.tolist()


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 17),
    st.integers(1, 17),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 0.02, 0.5, 0.9, 1.0]),
)
def test_random_masks_equal_pycocotools(height: int, width: int, seed: int, density: float) -> None:
    """Any mask gives pycocotools' text, both ways."""
    dense = np.random.default_rng(seed).random((height, width)) < density
    runs = runs_of_crop(dense, (0, 0), (height, width))

    assert encode_counts(runs) == coco_text(dense)
    assert decode_counts(coco_text(dense)).tolist() == naive_runs(dense)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(0, 6),
    st.integers(0, 6),
    st.integers(0, 2**32 - 1),
)
def test_a_crop_is_its_picture(h: int, w: int, x: int, y: int, seed: int) -> None:
    """A crop anywhere in a picture has the runs of the whole picture, canonical and exact."""
    rng = np.random.default_rng(seed)
    crop = rng.random((h, w)) < rng.choice([0.3, 1.0])
    dense = np.zeros((y + h + rng.integers(0, 3) + 1, x + w + rng.integers(0, 3) + 1), bool)
    dense[y : y + h, x : x + w] = crop
    if rng.integers(2):  # cut to the crop's far edges, so that it touches them
        dense = dense[: max(y + h, 1), : max(x + w, 1)]

    assert runs_of_crop(crop, (x, y), dense.shape).tolist() == naive_runs(dense)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1), max_size=20))
def test_any_run_lengths_come_back(values: list[int]) -> None:
    """Numbers up to the largest uint32, in any order, survive being packed."""
    runs = np.array(values, np.uint32)

    assert decode_counts(encode_counts(runs)).tolist() == values


def test_packing_leaves_its_argument_alone() -> None:
    """The array that is packed is not changed."""
    runs = np.array([1, 2, 3, 4, 5, 6], np.uint32)
    encode_counts(runs)

    assert runs.tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("text", ["", b""], ids=["text", "bytes"])
def test_empty_text_has_no_runs(text: str | bytes) -> None:
    """Nothing is no runs, as uint32."""
    assert decode_counts(text).shape == (0,)
    assert decode_counts(text).dtype == np.uint32


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("0 2", id="a space"),
        pytest.param("12\n", id="a line break"),
        pytest.param("é", id="not ascii"),
        pytest.param(b"\xff\x00", id="bytes beyond the alphabet"),
        pytest.param("p", id="above the alphabet"),
        pytest.param("P", id="cut off in a number"),
        pytest.param("PPPPPPPP0", id="more digits than a run can have"),
        pytest.param("PPPPPP?", id="beyond uint32"),
        pytest.param("@", id="negative first run"),
        pytest.param("111@", id="negative after the difference"),
    ],
)
def test_damaged_text_is_refused(text: str | bytes) -> None:
    """What no encoder writes is a DataError of one line, never a wrong mask or another exception."""
    with pytest.raises(DataError, match="RLE counts") as caught:
        decode_counts(text)

    assert "\n" not in str(caught.value)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=30))
def test_random_bytes_are_runs_or_an_error(data: bytes) -> None:
    """Whatever arrives, the answer is run lengths or a DataError."""
    try:
        runs = decode_counts(data)
    except DataError:
        return
    assert runs.dtype == np.uint32


@pytest.mark.parametrize(
    ("edges", "total", "expected"),
    [
        pytest.param([], 4, [4], id="no edges"),
        pytest.param([0, 4], 4, [0, 4], id="all of it"),
        pytest.param([1, 2], 4, [1, 1, 2], id="one run"),
        pytest.param([0, 2, 2, 4], 4, [0, 4], id="touching runs joined"),
        pytest.param([1, 2, 2, 3, 5, 6], 6, [1, 2, 2, 1], id="joined, then apart, to the end"),
    ],
)
def test_runs_of_edges(edges: list[int], total: int, expected: list[int]) -> None:
    """Starts and ends become runs, those that touch are one, a last run of nothing is left out."""
    assert runs_of_edges(np.array(edges, np.int64), total).tolist() == expected
