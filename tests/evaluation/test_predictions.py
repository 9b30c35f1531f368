"""Files of predictions, joined and measured: every form gives the same numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segcli.errors import DataError
from segcli.evaluation.metrics import Metrics
from segcli.evaluation.predictions import evaluate_predictions
from segcli.prediction.reader import read_predictions


def measured(made: Any, data: Any, folder: Path) -> Metrics:
    path = folder / "predictions.json"
    path.write_text(json.dumps(data))
    return evaluate_predictions(made.dataset(), read_predictions(path))


@pytest.mark.parametrize(
    "prefix", [pytest.param("", id="same names"), pytest.param("deep/er/", id="folder")]
)
def test_a_coco_dict_equals_the_bare_list(made: Any, tmp_path: Path, prefix: str) -> None:
    """Joined by names with other ids, the numbers are those of the list joined by ids."""
    bare = measured(made, made.results, tmp_path)
    named = measured(made, made.as_coco(prefix), tmp_path)
    assert named.box == bare.box
    assert named.mask == bare.mask
    np.testing.assert_array_equal(named.mask_curves.precision, bare.mask_curves.precision)  # type: ignore[union-attr]


def test_names_without_the_truths_folder(
    made: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Predictions made inside the truth's `set/` folder join, and that is said."""
    data = made.as_coco()
    for image in data["images"]:
        image["file_name"] = image["file_name"].removeprefix("set/")
    assert measured(made, data, tmp_path).box == measured(made, made.results, tmp_path).box
    assert "the truth's file names: left away set/" in capsys.readouterr().err


def test_what_is_dropped_is_counted_and_said(
    made: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unknown pictures and classes are dropped, missing pictures are misses; each is counted and named."""
    data = made.as_coco()
    expected = measured(made, made.results, tmp_path)
    data["categories"] += [{"id": 500, "name": "cow"}, {"id": 501, "name": "N/A"}]
    data["images"].append({"id": 999, "file_name": "set/other.jpg", "height": 9, "width": 9})
    extra = {"image_id": 90, "bbox": [1, 1, 5, 5], "score": 0.99}
    data["annotations"] += [{**extra, "category_id": 500}, {**extra, "category_id": 501}]
    data["annotations"].append({**extra, "image_id": 999, "category_id": 97})
    data["images"] = [i for i in data["images"] if i["id"] != 5]  # the picture without objects
    capsys.readouterr()
    metrics = measured(made, data, tmp_path)
    assert metrics.box == expected.box
    counts = metrics.counts
    assert (
        counts["dropped_detections"],
        counts["unknown_pictures"],
        counts["missing_pictures"],
    ) == (2, 1, 1)
    said = capsys.readouterr().err
    for line in (
        "no such class: cow, N/A",
        "the truth lacks them: set/other.jpg",
        "all misses: set/005.jpg",
        "2 detections of dropped classes",
        "evaluator: pycocotools",
    ):
        assert line in said


def test_a_missing_picture_lowers_recall(made: Any, tmp_path: Path) -> None:
    """Predictions that leave pictures out are measured against the whole truth."""
    kept = [row for row in made.results if row["image_id"] != 90]
    whole, part = (measured(made, rows, tmp_path) for rows in (made.results, kept))
    assert part.counts["truth"] == whole.counts["truth"]
    assert part.counts["missing_pictures"] >= 1
    assert part.box["AR100"] < whole.box["AR100"]  # type: ignore[operator]


def test_an_unpredicted_class_scores_zero(made: Any, tmp_path: Path) -> None:
    """A class that the predictions do not know counts in the mean with 0."""
    data = made.as_coco()
    data["categories"] = [c for c in data["categories"] if c["name"] != "dog"]
    data["annotations"] = [a for a in data["annotations"] if a["category_id"] != 97]
    metrics = measured(made, data, tmp_path)
    aps = {c.name: c.box_ap for c in metrics.per_class}
    assert aps["dog"] == 0
    assert aps["unseen"] is None
    assert metrics.box["AP"] == pytest.approx(np.mean([aps["cell"], aps["dog"], aps["cat"]]))  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        pytest.param(("bbox",), "no masks: only boxes are measured", id="boxes"),
        pytest.param(("segmentation",), "no box: theirs is drawn around the mask", id="masks"),
    ],
)
def test_what_the_rows_hold_is_said(
    made: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], keys: tuple[str], line: str
) -> None:
    """Boxes alone give no mask metrics; masks alone give both."""
    metrics = measured(made, made.only(*keys), tmp_path)
    assert (metrics.mask is None) == (keys == ("bbox",))
    assert metrics.box["AP"] is not None
    assert line in capsys.readouterr().err


def test_rows_without_masks_among_masks(
    made: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row without a mask has an empty one for mask metrics; boxes are measured as ever, and it is said."""
    whole = measured(made, made.results, tmp_path)
    rows = [dict(row) for row in made.results]
    for row in rows[::2]:
        del row["segmentation"]
    part = measured(made, rows, tmp_path)
    assert part.box == whole.box
    assert 0 < part.mask["AP"] < whole.mask["AP"]  # type: ignore[index,operator]
    assert f"{len(rows[::2])} predictions have no mask" in capsys.readouterr().err


@pytest.mark.parametrize("data", [pytest.param([], id="list"), pytest.param(None, id="coco")])
def test_nothing_predicted(
    made: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], data: Any
) -> None:
    """A file without one object is a result: all zero, with a warning."""
    metrics = measured(
        made, {**made.as_coco(), "annotations": []} if data is None else data, tmp_path
    )
    assert metrics.mask is not None
    assert metrics.box["AP"] == metrics.mask["AP"] == 0
    assert "not one object in it" in capsys.readouterr().err


def test_a_truth_file_is_no_prediction(made: Any) -> None:
    """Annotations have no scores; the message asks whether the file is the right one."""
    with pytest.raises(DataError, match=r"score None.*is this a file of predictions\?"):
        evaluate_predictions(made.dataset(), read_predictions(made.path))


def test_masks_of_another_size_are_refused(made: Any, tmp_path: Path) -> None:
    """A mask that does not fit the annotated picture is refused with both sizes and the picture's name."""
    data = made.as_coco()
    first = next(a for a in data["annotations"] if a["image_id"] == 90)
    first["segmentation"] = {"size": [10, 10], "counts": [100]}
    with pytest.raises(DataError, match=r"set/090.jpg: .*\[10, 10\].*\[97, 131\]"):
        measured(made, data, tmp_path)
