"""Rows of a predictions file, unpacked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from segcli.errors import DataError
from segcli.instances import Instances
from segcli.masks import Masks
from segcli.prediction.rows import PredictedPicture, ScoredObjects, as_rle

SIZE = (6, 9)
RLE = {"size": [6, 9], "counts": [13, 3, 3, 3, 32]}  # x 2..3, y 1..3


def picture(*rows: dict[str, Any], size: tuple[int, int] | None = SIZE) -> PredictedPicture:
    full = tuple({"category_id": 5, "score": 0.5, **row} for row in rows)
    return PredictedPicture(Path("p.json"), 7, "a.jpg", size, full, {5: 0, 3: 1})


def test_no_rows() -> None:
    """A picture without objects has empty everything, whether or not its size is known."""
    objects = picture(size=None).objects()
    assert (len(objects), objects.boxes.shape, objects.masks) == (0, (0, 4), None)
    instances = picture().instances()
    assert len(instances) == len(instances.masks or ()) == 0
    assert instances.scores is not None


def test_numbers_stay_as_in_the_file() -> None:
    """Evaluation gets float64: no number is rounded."""
    row = {"bbox": [0.1, 0.2, 0.3, 0.7], "score": 0.236, "category_id": 3}
    objects = picture(row).objects()
    assert objects.boxes.tolist() == [[0.1, 0.2, 0.3, 0.7]]
    assert objects.scores.tolist() == [0.236]
    assert objects.labels.tolist() == [1]
    assert objects.masks is None


def test_boxes_are_drawn_around_masks() -> None:
    """A row with only a mask gets its tight box; one that has a box keeps it."""
    objects = picture({"segmentation": RLE}, {"segmentation": RLE, "bbox": [1, 1, 4, 5]}).objects()
    assert objects.boxes.tolist() == [[2, 1, 2, 3], [1, 1, 4, 5]]


@pytest.mark.parametrize("empty", [pytest.param([], id="list"), pytest.param(None, id="null")])
def test_an_empty_segmentation_is_none(empty: Any) -> None:
    """Tools that write `[]` or null have no mask; among masks, such a row has an empty one."""
    row = {"bbox": [1, 1, 2, 2], "segmentation": empty}
    assert picture(row).objects().masks is None
    masks = picture(row, {"segmentation": RLE}).objects().masks
    assert masks is not None
    assert masks.area().tolist() == [0, 6]


def test_instances() -> None:
    """As `Instances`: float32 corners in pixels, the size of the file."""
    found = picture({"bbox": [1, 2, 3, 4], "segmentation": RLE}).instances()
    assert found.image_size == SIZE
    assert found.boxes.tolist() == [[1, 2, 4, 6]]
    assert found.boxes.dtype == np.float32
    assert found.masks is not None
    assert found.masks.area().tolist() == [6]


def test_instances_without_scores() -> None:
    """Annotations can be drawn, too: their scores are None."""
    rows = ({"bbox": [1, 2, 3, 4], "category_id": 5},)
    assert PredictedPicture(Path("p"), 1, "a", SIZE, rows, {5: 0}).instances().scores is None


def test_instances_need_a_size() -> None:
    """A bare list of boxes knows no size; the caller gives it."""
    unknown = picture({"bbox": [1, 2, 3, 4]}, size=None)
    assert unknown.instances((20, 30)).image_size == (20, 30)
    with pytest.raises(DataError, match=r"p.json: picture a.jpg: .*how large"):
        unknown.instances()


def test_polygons_are_rasterised_as_pycocotools_does() -> None:
    """Several parts are one mask; parts of fewer than three points cover nothing."""
    parts = [[1.5, 1, 6, 1, 6, 4.5], [7, 0, 9, 0, 9, 6, 7, 6]]
    expected = coco_mask.merge(coco_mask.frPyObjects(parts, *SIZE))
    masks = picture({"segmentation": [*parts, [0, 0, 5, 5]]}).objects().masks
    assert masks is not None
    assert masks.coco(0)["counts"] == expected["counts"].decode()
    assert Masks.from_coco([as_rle([[0, 0, 5, 5]], SIZE)], SIZE).area().tolist() == [0]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param({"bbox": [1, 2, 3]}, "bbox .*expected 4 numbers", id="three numbers"),
        pytest.param({"bbox": [1, 2, 3, float("nan")]}, "bbox", id="nan"),
        pytest.param({"bbox": "1 2 3 4"}, "damaged bbox", id="text"),
        pytest.param({"bbox": {"x": 1}}, "damaged bbox", id="dict"),
        pytest.param({"bbox": [1, 2, 3, 4], "score": "high"}, "score 'high'", id="score"),
        pytest.param({"bbox": [1, 2, 3, 4], "score": float("inf")}, "score inf", id="inf"),
        pytest.param(
            {"segmentation": {"size": [6, 9]}}, "expected size and counts", id="no counts"
        ),
        pytest.param({"segmentation": {"counts": "x"}}, "expected size and counts", id="no size"),
        pytest.param(
            {"segmentation": {"size": [6, 9], "counts": "~"}}, "damaged text", id="text rle"
        ),
        pytest.param({"segmentation": {"size": [6, 9], "counts": [5]}}, "covers 5", id="short rle"),
        pytest.param({"segmentation": {"size": [6, 9], "counts": None}}, "segmentation", id="null"),
        pytest.param({"segmentation": {"size": [9, 6], "counts": [54]}}, "of size", id="turned"),
        pytest.param({"segmentation": {"size": 3, "counts": [54]}}, "segmentation", id="one size"),
        pytest.param({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "flat list", id="odd polygon"),
        pytest.param({"segmentation": [["a"] * 6]}, "segmentation", id="text polygon"),
        pytest.param(
            {"segmentation": [[0, 0, 9, 9, float("inf"), 1]]}, "flat list", id="inf point"
        ),
        pytest.param({"segmentation": "poly"}, "segmentation", id="no polygon"),
        pytest.param({"segmentation": 7}, "segmentation", id="a number"),
    ],
)
def test_damaged_rows_are_named(row: dict[str, Any], expected: str) -> None:
    """Each damage is one error with file and picture."""
    with pytest.raises(DataError, match=f"p.json: picture a.jpg: .*{expected}"):
        picture(row).objects()


def test_masks_need_a_size() -> None:
    """Polygons without any size cannot be rasterised."""
    with pytest.raises(DataError, match="how large"):
        picture({"segmentation": [[0, 0, 5, 0, 5, 5]]}, size=None).objects()


def test_slices() -> None:
    """Objects are filtered by index, slice or bool, masks with them."""
    rows = [{"bbox": [n, 0, 1, 1], "segmentation": RLE, "score": n / 10} for n in range(4)]
    objects = picture(*rows).objects()
    assert objects[objects.scores > 0.15].boxes[:, 0].tolist() == [2, 3]
    assert objects[1:2].scores.tolist() == [0.1]
    assert len(objects[3].masks or ()) == 1


def test_from_instances() -> None:
    """What a model found: xyxy float32 to x, y, width, height float64; without scores it is refused."""
    boxes = np.array([[0.1, 0.2, 10.7, 20.9]], np.float32)
    found = Instances((30, 40), boxes, np.zeros(1, np.int32), np.array([0.3], np.float32))
    objects = ScoredObjects.from_instances(found)
    wide = boxes.astype(np.float64)[0]
    assert objects.boxes[0].tolist() == [*wide[:2], *(wide[2:] - wide[:2])]
    assert objects.scores.tolist() == [np.float64(np.float32(0.3))]
    assert boxes[0, 2] == np.float32(10.7)  # the instances are not changed
    with pytest.raises(DataError, match="without scores"):
        ScoredObjects.from_instances(Instances((30, 40), boxes, np.zeros(1, np.int32)))
