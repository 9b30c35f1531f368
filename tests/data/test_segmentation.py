"""One `segmentation` field: every form that occurs is read, every fault is told apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from segcli.data.segmentation import Shape, read_segmentation

SQUARE = [2, 2, 10, 2, 10, 8, 2, 8]
SIZE = (20, 30)  # H, W
BLOCK = np.zeros(SIZE, np.uint8, order="F")
BLOCK[3:9, 5:12] = 1
PACKED = {"size": [20, 30], "counts": coco_mask.encode(BLOCK)["counts"].decode()}
RUNS = [103, *[6, 14] * 6, 6, 371]  # by hand: column 5, row 3 is pixel 103; seven columns of six
NO_NUMBERS = "polygon coordinates that are no numbers"


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        pytest.param(None, "no segmentation", id="null"),
        pytest.param([], "no segmentation", id="empty"),
        pytest.param([[]], "no segmentation", id="empty-polygon"),
        pytest.param({}, "no segmentation", id="empty-rle"),
        pytest.param("x", "segmentation not understood", id="text"),
        pytest.param([{"x": 1}], "segmentation not understood", id="dicts"),
        pytest.param([[1, 2, 3, 4]], "polygon with fewer than 3 points", id="two-points"),
        pytest.param([SQUARE[:-1]], "polygon with an odd number of coordinates", id="odd"),
        pytest.param([[*SQUARE[:-1], float("nan")]], NO_NUMBERS, id="nan"),
        pytest.param([[float("inf"), *SQUARE[1:]]], NO_NUMBERS, id="inf"),
        pytest.param([["a", *SQUARE[1:]]], NO_NUMBERS, id="words"),
        pytest.param([[None, *SQUARE[1:]]], NO_NUMBERS, id="null-x"),
        pytest.param([[[1, 2], *SQUARE[1:]]], NO_NUMBERS, id="ragged"),
        pytest.param([[10**400, *SQUARE[1:]]], NO_NUMBERS, id="endless"),
        pytest.param([[v + 100 for v in SQUARE]], "polygon outside the picture", id="right-of-it"),
        pytest.param([[v - 10 for v in SQUARE]], "polygon outside the picture", id="left-of-it"),
        pytest.param([[-1e9, 0, 1e9, 0, 0, 1e9]], "polygon outside the picture", id="vast"),
        pytest.param([[2, 2, 5, 5, 8, 8]], "polygon without area", id="diagonal"),
        pytest.param([[2, 2, 2, 2, 2, 2]], "polygon without area", id="one-place"),
        pytest.param(
            [[1, 2, 3], [4, 5]], "polygon with an odd number of coordinates", id="two-bad"
        ),
        pytest.param({**PACKED, "size": [30, 20]}, "RLE of another size", id="swapped-rle"),
        pytest.param({**PACKED, "size": [21, 30]}, "RLE of another size", id="other-rle"),
        pytest.param({**PACKED, "size": None}, "RLE of another size", id="no-size"),
        pytest.param({"counts": "x"}, "segmentation not understood", id="half-an-rle"),
        pytest.param({**PACKED, "counts": "\x7f!"}, "damaged RLE", id="bad-text"),
        pytest.param({**PACKED, "counts": "é"}, "damaged RLE", id="no-ascii"),
        pytest.param({**PACKED, "counts": PACKED["counts"][:-2]}, "damaged RLE", id="cut-off"),
        pytest.param({**PACKED, "counts": [1, 2]}, "damaged RLE", id="too-short"),
        pytest.param({**PACKED, "counts": [-1, 601]}, "damaged RLE", id="negative"),
        pytest.param({**PACKED, "counts": [2**32, 600]}, "damaged RLE", id="over-32-bits"),
        pytest.param({**PACKED, "counts": [2**70, 600]}, "damaged RLE", id="over-64-bits"),
        pytest.param({**PACKED, "counts": None}, "damaged RLE", id="no-counts"),
        pytest.param({**PACKED, "counts": ["a"]}, "damaged RLE", id="words-in-rle"),
        pytest.param({**PACKED, "counts": [600]}, "mask without a pixel", id="no-pixel"),
        pytest.param({**PACKED, "counts": ""}, "damaged RLE", id="no-runs"),
    ],
)
def test_unusable(value: Any, kind: str) -> None:
    """What cannot be used gives no shape, and a short reason with a remedy."""
    shape, faults = read_segmentation(value, SIZE)
    assert shape is None
    assert faults[0].kind == kind
    assert faults[0].remedy
    assert all(0 < len(text) < 180 for text in (faults[0].found, faults[0].remedy))


@pytest.mark.parametrize(
    ("value", "polygons", "kinds"),
    [
        pytest.param([SQUARE], [SQUARE], [], id="one"),
        pytest.param([SQUARE, [4, 4, 6, 4, 6, 6]], [SQUARE, [4, 4, 6, 4, 6, 6]], [], id="two"),
        pytest.param([[str(v) for v in SQUARE]], [SQUARE], [], id="text"),
        pytest.param([[-3, 2, 10, 2, 10, 99]], [[-3, 2, 10, 2, 10, 99]], [], id="partly-outside"),
        pytest.param(
            [[2, 2, 12, 12, 12, 2, 2, 12]], [[2, 2, 12, 12, 12, 2, 2, 12]], [], id="crossing"
        ),
        pytest.param(SQUARE, [SQUARE], ["polygon outside a list of polygons"], id="flat"),
        pytest.param(
            [[2, 2], [10, 2], [10, 8], [2, 8]],
            [SQUARE],
            ["polygon as a list of points"],
            id="points",
        ),
        pytest.param(
            [[1, 2, 3], SQUARE, [v + 99 for v in SQUARE]],
            [SQUARE],
            ["polygon with an odd number of coordinates", "polygon outside the picture"],
            id="good-and-bad",
        ),
        pytest.param(
            [[0.1, 0.1, 0.6, 0.1, 0.6, 0.7]],
            [[0.1, 0.1, 0.6, 0.1, 0.6, 0.7]],
            ["object smaller than a pixel"],
            id="fractions",
        ),
        pytest.param(
            [[0.5, 0.5, 0.9, 0.5, 1.4, 0.9], [0.1, 0.1, 0.6, 0.1, 0.6, 0.7]],
            [[0.5, 0.5, 0.9, 0.5, 1.4, 0.9], [0.1, 0.1, 0.6, 0.1, 0.6, 0.7]],
            [],
            id="small-but-over-a-pixel",
        ),
    ],
)
def test_polygons(value: Any, polygons: list[list[float]], kinds: list[str]) -> None:
    """Polygons are kept as float64 (P, 2); other ways to write one are repaired, bad parts left out."""
    shape, faults = read_segmentation(value, SIZE)
    assert shape is not None
    assert shape.rle is None
    assert shape.polygons is not None
    assert [p.reshape(-1).tolist() for p in shape.polygons] == polygons
    assert all(p.dtype == np.float64 and p.shape[1] == 2 for p in shape.polygons)
    assert [fault.kind for fault in faults] == kinds


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(PACKED, id="packed"),
        pytest.param({"size": [20, 30], "counts": RUNS}, id="runs"),
        pytest.param({"size": ["20", 30.0], "counts": PACKED["counts"]}, id="size-as-text"),
    ],
)
def test_run_lengths(value: dict[str, Any]) -> None:
    """Packed and plain run lengths give the same mask."""
    shape, faults = read_segmentation(value, SIZE)
    assert shape is not None
    assert shape.rle is not None
    assert faults == ()
    np.testing.assert_array_equal(shape.rle.full(0), BLOCK.astype(bool))
    assert shape.area(SIZE) == BLOCK.sum()
    assert shape.bbox(SIZE).tolist() == [5, 3, 7, 6]


def test_box_and_area_of_polygons() -> None:
    """The box of polygons is cut to the picture; their area is that of pycocotools' mask."""
    points = [np.array([[-5.0, 2], [10, 2], [10, 50]]), np.array([[20.0, 1], [25, 1], [25, 7.5]])]
    shape = Shape(polygons=tuple(points))
    assert shape.bbox(SIZE).tolist() == [0, 1, 25, 19]
    parts = coco_mask.frPyObjects([p.reshape(-1).tolist() for p in points], *SIZE)
    assert shape.area(SIZE) == coco_mask.area(coco_mask.merge(parts))
