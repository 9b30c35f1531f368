"""Rows of `annotations`: usable ones come through exactly, the others are left out or repaired by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segcli.annotations import Annotation, Dataset
from segcli.data.coco import survey_coco

Write = Callable[..., Path]
RLE = {"size": [20, 30], "counts": [103, 6, 14, 6, 471]}  # rows 3 to 8 of columns 5 and 6


def survey(path: Path, **options: Any) -> Dataset:
    return survey_coco(path, need_pictures=False, **options)


def objects(dataset: Dataset) -> list[Annotation]:
    return [a for p in dataset.pictures for a in p.annotations]


def test_clean_rows(write_coco: Write) -> None:
    """Ids of any kind, polygons, RLE and crowds come through as the file says, without a problem."""
    rows = [{"id": 7}, {"id": "b", "segmentation": RLE, "area": 12.5}, {"id": 0, "iscrowd": 1}]
    dataset = survey(write_coco(rows))
    assert dataset.problems == ()
    assert [a.id for a in objects(dataset)] == [7, "b", 0]
    assert [a.area for a in objects(dataset)] == [48.0, 12.5, 48.0]
    assert [a.iscrowd for a in objects(dataset)] == [False, False, True]
    assert [a.rle is None for a in objects(dataset)] == [True, False, True]
    assert [a.polygons is None for a in objects(dataset)] == [False, True, False]


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        pytest.param({"segmentation": ...}, "no segmentation", id="no-segmentation"),
        pytest.param(
            {"segmentation": [[1, 2], [3]]}, "polygon with fewer than 3 points", id="parts"
        ),
        pytest.param({"image_id": 99}, "unknown image_id", id="image-id"),
        pytest.param({"image_id": ...}, "unknown image_id", id="no-image-id"),
        pytest.param({"category_id": 99}, "unknown category_id", id="category-id"),
        pytest.param({"category_id": True}, "unknown category_id", id="true-category"),
        pytest.param({"category_id": 9, "segmentation": 1}, "unknown category_id", id="two-faults"),
    ],
)
def test_left_out(write_coco: Write, changes: dict[str, Any], kind: str) -> None:
    """An annotation that cannot be used is left out and named once; the next one is kept."""
    dataset = survey(write_coco([{"id": 5, **changes}, {"id": 6}]))
    (problem,) = dataset.problems
    assert [a.id for a in objects(dataset)] == [6]
    assert (problem.kind, problem.left_out) == (kind, True)
    assert problem.where.startswith("a.json: annotation 5")
    assert problem.found
    assert problem.remedy.startswith("left out; ")


@pytest.mark.parametrize(
    ("changes", "kind", "area", "bbox"),
    [
        pytest.param({"area": ...}, "no area", 48, [2, 2, 8, 6], id="no-area"),
        pytest.param({"area": 0}, "no area", 48, [2, 2, 8, 6], id="area-0"),
        pytest.param({"area": "x"}, "no area", 48, [2, 2, 8, 6], id="area-text"),
        pytest.param({"area": [1]}, "no area", 48, [2, 2, 8, 6], id="area-list"),
        pytest.param({"area": True}, "no area", 48, [2, 2, 8, 6], id="area-true"),
        pytest.param({"bbox": ...}, "no bbox", 48, [2, 2, 8, 6], id="no-bbox"),
        pytest.param({"bbox": []}, "no bbox", 48, [2, 2, 8, 6], id="empty-bbox"),
        pytest.param({"bbox": [9, 9, 0, 6]}, "bbox without size", 48, [2, 2, 8, 6], id="flat-bbox"),
        pytest.param({"bbox": [1, 2, 3]}, "bbox not understood", 48, [2, 2, 8, 6], id="short-bbox"),
        pytest.param(
            {"bbox": [[1]] * 4}, "bbox not understood", 48, [2, 2, 8, 6], id="nested-bbox"
        ),
        pytest.param(
            {"bbox": [1, 2, 3, float("nan")]},
            "bbox not understood",
            48,
            [2, 2, 8, 6],
            id="nan-bbox",
        ),
        pytest.param(
            {"segmentation": RLE, "bbox": None}, "no bbox", 48, [5, 3, 2, 6], id="rle-bbox"
        ),
        pytest.param({"segmentation": RLE, "area": -1}, "no area", 12, [2, 2, 8, 6], id="rle-area"),
        pytest.param({"id": ...}, "annotation without id", 48, [2, 2, 8, 6], id="no-id"),
        pytest.param(
            {"segmentation": [2, 2, 10, 2, 10, 8, 2, 8]},
            "polygon outside a list of polygons",
            48,
            [2, 2, 8, 6],
            id="polygon",
        ),
    ],
)
def test_repaired(
    write_coco: Write, changes: dict[str, Any], kind: str, area: float, bbox: list[float]
) -> None:
    """What can be repaired is kept, with area and bbox of its mask where those are missing, and counted."""
    dataset = survey(write_coco([changes]))
    (annotation,) = objects(dataset)
    (problem,) = dataset.problems
    assert (problem.kind, problem.left_out) == (kind, False)
    assert annotation.area == area
    assert annotation.bbox.tolist() == bbox
    assert annotation.bbox.dtype == np.float64


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"area": "48", "bbox": ["2", "2", "8", "6"]}, id="area-bbox"),
        pytest.param({"image_id": "1", "category_id": "1"}, id="ids"),
        pytest.param({"image_id": 1.0, "category_id": 1.0}, id="whole-floats"),
        pytest.param({"iscrowd": "0"}, id="crowd"),
        pytest.param({"iscrowd": ...}, id="no-crowd"),
        pytest.param({"iscrowd": None}, id="crowd-null"),
    ],
)
def test_loosely_written(write_coco: Write, changes: dict[str, Any]) -> None:
    """Numbers as text, whole floats as ids and an absent `iscrowd` are no problem."""
    dataset = survey(write_coco([changes]))
    (annotation,) = objects(dataset)
    assert dataset.problems == ()
    assert (annotation.area, annotation.bbox.tolist()) == (48, [2, 2, 8, 6])
    assert not annotation.iscrowd


@pytest.mark.parametrize("value", [pytest.param(v, id=repr(v)) for v in (True, "1", "true", 1.0)])
def test_crowds(write_coco: Write, value: Any) -> None:
    """Every way to write `iscrowd` is one, and none with `crowd_as_instance`."""
    path = write_coco([{"iscrowd": value}])
    assert objects(survey(path))[0].iscrowd
    assert not objects(survey(path, crowd_as_instance=True))[0].iscrowd


def test_ids_used_twice(write_coco: Write) -> None:
    """Annotations of one id are all kept, and counted."""
    dataset = survey(write_coco([{"id": 3}, {"id": 3}, {"id": 4}, {"id": 3}]))
    assert [a.id for a in objects(dataset)] == [3, 3, 4, 3]
    assert [(p.kind, p.left_out) for p in dataset.problems] == [
        ("annotation id used twice", False)
    ] * 2


def test_rows_of_pictures_left_out(write_coco: Write) -> None:
    """Annotations whose picture was left out are counted once, not called unknown."""
    images = [{"height": 0}, {"file_name": "2.png"}, {"file_name": 3, "width": 0}]
    rows = [{}, {}, {"image_id": 2}, {"image_id": 3}]
    dataset = survey(write_coco(rows, images))
    assert [a.id for a in objects(dataset)] == [3]
    assert Counter(p.kind for p in dataset.problems) == {
        "picture without size": 2,
        "picture without file_name": 1,
        "annotations of pictures left out": 1,
    }
    assert dataset.problems[-1].found == "3 annotations"


def test_rows_of_another_kind(write_coco: Write) -> None:
    """A row that is no object is left out by its place."""
    dataset = survey(write_coco([None, {}]))
    assert [p.where for p in dataset.problems] == ["a.json: annotation 1 of the list"]
    assert len(objects(dataset)) == 1
