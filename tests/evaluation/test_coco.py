"""Metrics against pycocotools itself, and hand-worked cases."""

from __future__ import annotations

import contextlib
import copy
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segcli.annotations import Annotation, Dataset, Picture
from segcli.categories import Categories
from segcli.data.coco import read_coco
from segcli.errors import DataError
from segcli.evaluation.coco import evaluate, measure
from segcli.evaluation.predictions import evaluate_predictions
from segcli.instances import Instances
from segcli.masks import Masks
from segcli.prediction.reader import read_predictions

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def reference(
    truth: dict[str, Any], results: list[dict[str, Any]], kind: str, limit: int = 100
) -> Any:
    """A plain pycocotools run."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(truth)
        for number, annotation in enumerate(coco.dataset["annotations"], start=1):
            annotation["id"] = number
        coco.createIndex()
        run = COCOeval(coco, coco.loadRes(copy.deepcopy(results)), kind)
        run.params.maxDets = [1, 10, limit]
        run.evaluate()
        run.accumulate()
        if limit == 100:
            run.summarize()
    return run


def write(folder: Path, data: Any) -> Path:
    path = folder / "predictions.json"
    path.write_text(json.dumps(data))
    return path


@pytest.mark.parametrize(
    ("kind", "key", "name"),
    [pytest.param("bbox", "bbox", "box"), pytest.param("segm", "segmentation", "mask")],
)
@pytest.mark.parametrize("limit", [pytest.param(100, id="100"), pytest.param(12, id="12")])
def test_arrays_are_those_of_pycocotools(
    made: Any, tmp_path: Path, kind: str, key: str, name: str, limit: int
) -> None:
    """Boxes alone and masks alone give pycocotools' arrays bit for bit, with any limit."""
    results = made.only(key)
    expected = reference(made.truth, results, kind, limit)
    file = read_predictions(write(tmp_path, results))
    metrics = evaluate_predictions(made.dataset(), file, max_dets=limit)
    curves = getattr(metrics, f"{name}_curves")
    for array in ("precision", "recall", "scores"):
        np.testing.assert_array_equal(getattr(curves, array), expected.eval[array])
    if limit == 100:
        summary = getattr(metrics, name)
        assert tuple(summary) == NAMES
        assert list(summary.values()) == expected.stats.tolist()
        assert 0.1 < summary["AP"] < 0.9


def test_rows_with_both_are_measured_by_their_own_area(made: Any, tmp_path: Path) -> None:
    """A row with box and mask counts with the box's area for boxes and the mask's for masks, as in detectron2."""
    file = read_predictions(write(tmp_path, made.results))
    metrics = evaluate_predictions(made.dataset(), file)
    box = reference(made.truth, made.only("bbox"), "bbox")
    mask = reference(made.truth, made.only("segmentation"), "segm")
    plain = reference(made.truth, made.results, "segm")  # takes the box's area for masks
    assert metrics.mask is not None
    assert list(metrics.box.values()) == box.stats.tolist()
    assert list(metrics.mask.values()) == mask.stats.tolist()
    assert list(metrics.mask.values()) != plain.stats.tolist()


def test_the_real_files_give_the_printed_numbers(shared: Callable[[str], Path]) -> None:
    """The fake results of cocoapi give the 24 printed numbers and pycocotools' own arrays."""
    folder = shared("data/eval_parity")
    text = (folder / "val2014_fake_eval_res.txt").read_text()
    printed = [float(line.rsplit("=", 1)[1]) for line in text.splitlines() if " Average " in line]
    path = folder / "instances_val2014_100.json"
    truth = read_coco(path, need_pictures=False)
    assert sum(len(p.annotations) for p in truth.pictures) == 839
    for kind, name, numbers in (("segm", "mask", printed[:12]), ("bbox", "box", printed[12:24])):
        source = folder / f"instances_val2014_fake{kind}100_results.json"
        metrics = evaluate_predictions(truth, read_predictions(source))
        assert [round(v, 3) for v in getattr(metrics, name).values()] == numbers
        run = reference(json.loads(path.read_text()), json.loads(source.read_text()), kind)
        curves = getattr(metrics, f"{name}_curves")
        for array in ("precision", "recall", "scores"):
            np.testing.assert_array_equal(getattr(curves, array), run.eval[array])


def square(x: int, y: int, side: int = 40) -> Masks:
    dense = np.zeros((1, 100, 120), bool)
    dense[0, y : y + side, x : x + side] = True
    return Masks.from_dense(dense)


def truth_of(*masks: Masks, area: float | None = None, crowd: bool = False) -> Dataset:
    """Two pictures; the first has the given objects of class `a`; class `b` is never annotated."""
    annotations = tuple(
        Annotation(
            id=n,
            label=0,
            bbox=np.array([*m.boxes()[0, :2], *(m.boxes()[0, 2:] - m.boxes()[0, :2])], np.float64),
            area=float(m.area()[0]) if area is None else area,
            iscrowd=crowd,
            rle=m,
        )
        for n, m in enumerate(masks)
    )
    pictures = (
        Picture("first", "first.png", None, (100, 120), annotations),
        Picture("second", "second.png", None, (50, 60)),
    )
    return Dataset(Path("truth.json"), None, pictures, Categories.from_names(["a", "b"]))


def found(*masks: Masks, scores: list[float] | None, with_masks: bool = True) -> Instances:
    merged = Masks.from_runs((m.runs(0) for m in masks), (100, 120))
    return Instances(
        image_size=(100, 120),
        boxes=merged.boxes(),
        labels=np.zeros(len(masks), np.int32),
        scores=None if scores is None else np.array(scores, np.float32),
        masks=merged if with_masks else None,
    )


def test_nothing_found_scores_zero() -> None:
    """No detections at all is a result: 0 for boxes and masks, null where the truth has no such size."""
    metrics = evaluate(truth_of(square(0, 0)), [])
    assert metrics.mask is not None
    assert metrics.box == metrics.mask
    assert metrics.box["AP"] == metrics.box["APm"] == metrics.box["AR100"] == 0
    assert metrics.box["APs"] is metrics.box["ARl"] is None


def test_no_truth_is_null() -> None:
    """Detections on pictures without one object measure nothing."""
    truth = truth_of()
    metrics = evaluate(truth, [(truth.pictures[0], found(square(0, 0), scores=[0.9]))])
    assert set(metrics.box.values()) == {None}
    assert metrics.counts == {"pictures": 2, "truth": 0, "crowds": 0, "detections": 1}


def test_half_found() -> None:
    """One of two objects found exactly, hand-worked: AP is the 51 of 101 recalls up to one half, AR one half."""
    truth = truth_of(square(0, 0), square(60, 50))
    metrics = evaluate(truth, [(truth.pictures[0], found(square(60, 50), scores=[0.5]))])
    assert metrics.mask is not None
    assert metrics.box["AP"] == metrics.mask["AP"] == pytest.approx(51 / 101)
    assert metrics.mask["AR1"] == metrics.mask["AR100"] == 0.5
    assert [(c.name, c.truth, c.detections) for c in metrics.per_class] == [
        ("a", 2, 1),
        ("b", 0, 0),
    ]
    assert metrics.per_class[0].mask_ap == metrics.mask["AP"]
    assert metrics.per_class[1].box_ap is None


def test_the_truth_is_sized_as_annotated() -> None:
    """A truth of 40² pixels annotated as 100 px² is small."""
    truth = truth_of(square(0, 0), area=100.0)
    metrics = evaluate(truth, [(truth.pictures[0], found(square(0, 0), scores=[0.5]))])
    assert metrics.mask is not None
    assert metrics.mask["APs"] == pytest.approx(1)
    assert metrics.mask["APm"] is None


def test_the_first_annotation_can_be_matched() -> None:
    """An annotation with id 0 is matched like any other (pycocotools alone takes 0 for no match)."""
    truth = truth_of(square(0, 0))
    assert truth.pictures[0].annotations[0].id == 0
    metrics = evaluate(truth, [(truth.pictures[0], found(square(0, 0), scores=[0.5]))])
    assert metrics.box["AP"] == pytest.approx(1)


def test_crowds_are_neither_missed_nor_wrong() -> None:
    """A detection inside a crowd region is ignored, and the region is not to be found."""
    truth = truth_of(square(0, 0, 80), crowd=True)
    metrics = evaluate(truth, [(truth.pictures[0], found(square(10, 10, 20), scores=[0.5]))])
    assert metrics.box["AP"] is None
    assert metrics.counts["crowds"] == 1


@pytest.mark.parametrize(
    ("max_dets", "names", "recalls"),
    [
        pytest.param(1, ["AR1"], [1 / 12], id="one"),
        pytest.param(5, ["AR1", "AR5"], [1 / 12, 5 / 12], id="below ten"),
        pytest.param(10, ["AR1", "AR10"], [1 / 12, 10 / 12], id="ten"),
        pytest.param(300, ["AR1", "AR10", "AR300"], [1 / 12, 10 / 12, 1], id="many"),
    ],
)
def test_limits_are_named_after_what_they_are(
    max_dets: int, names: list[str], recalls: list[float]
) -> None:
    """Every AP uses --max-dets, and recalls are named by their limits."""
    masks = [square(x, y, 15) for x in range(0, 80, 20) for y in range(0, 60, 20)]
    truth = truth_of(*masks)
    scores = np.linspace(0.9, 0.1, 12).tolist()
    metrics = evaluate(
        truth, [(truth.pictures[0], found(*masks, scores=scores))], max_dets=max_dets
    )
    values = {k: v for k, v in metrics.box.items() if k.startswith("AR") and k[2].isdigit()}
    assert list(values) == names
    assert list(values.values()) == pytest.approx(recalls)
    expected = sum(r <= min(max_dets, 12) / 12 for r in np.linspace(0, 1, 101)) / 101
    assert metrics.box["AP"] == pytest.approx(expected)
    assert metrics.max_dets == max_dets
    assert metrics.evaluator[0] == "pycocotools"


def test_more_than_a_hundred_detections_count() -> None:
    """With --max-dets 200, the AP of 150 objects reaches 1 (pycocotools' summary would stop at 100)."""
    masks = [square(x, y, 5) for x in range(0, 120, 8) for y in range(0, 100, 10)]
    truth = truth_of(*masks)
    detections = [(truth.pictures[0], found(*masks, scores=[0.5] * 150))]
    assert evaluate(truth, detections, max_dets=200).box["AP"] == pytest.approx(1)
    assert evaluate(truth, detections).box["AP"] == pytest.approx(67 / 101)


def test_boxes_alone() -> None:
    """Detections without masks give no mask metrics."""
    truth = truth_of(square(0, 0))
    boxes = found(square(0, 0), scores=[0.5], with_masks=False)
    metrics = evaluate(truth, [(truth.pictures[0], boxes)])
    assert metrics.mask is metrics.mask_curves is None
    assert metrics.box["AP"] == pytest.approx(1)
    assert metrics.per_class[0].mask_ap is None


def test_objects_without_scores_are_refused() -> None:
    """Annotations cannot be evaluated as predictions."""
    truth = truth_of(square(0, 0))
    with pytest.raises(DataError, match="without scores"):
        evaluate(truth, [(truth.pictures[0], found(square(0, 0), scores=None))])


def test_masks_of_another_size_are_refused() -> None:
    """Masks that do not fit the annotated picture are named, with both sizes."""
    truth = truth_of(square(0, 0))
    with pytest.raises(DataError, match=r"second.png: .*\(100, 120\).*\(50, 60\)"):
        evaluate(truth, [(truth.pictures[1], found(square(0, 0), scores=[0.5]))])


def test_stdout_stays_clean(capsys: pytest.CaptureFixture[str]) -> None:
    """What pycocotools prints does not reach stdout."""
    evaluate(truth_of(square(0, 0)), [])
    assert capsys.readouterr().out == ""


def test_text_ids_sort_as_pycocotools_sorts_them(made: Any, tmp_path: Path) -> None:
    """Pictures with text ids keep pycocotools' order, which decides ties of scores."""
    truth, results = copy.deepcopy(made.truth), made.only("bbox")
    for row in (*truth["images"],):
        row["id"] = f"p{row['id']}"
    for row in (*truth["annotations"], *results):
        row["image_id"] = f"p{row['image_id']}"
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(truth))
    file = read_predictions(write(tmp_path, results))
    metrics = evaluate_predictions(read_coco(path, need_pictures=False), file)
    expected = reference(truth, results, "bbox").eval
    np.testing.assert_array_equal(metrics.box_curves.precision, expected["precision"])


def test_measuring_is_repeatable(made: Any, tmp_path: Path) -> None:
    """A dataset can be measured again and again: nothing of it is changed."""
    file = read_predictions(write(tmp_path, made.results))
    truth = made.dataset()
    first, second = (evaluate_predictions(truth, file).to_json() for _ in range(2))
    assert first == second


def test_one_picture_may_come_in_parts(made: Any) -> None:
    """Detections of one picture that come in two parts count like one."""
    truth = truth_of(square(0, 0), square(60, 50))
    parts = [(truth.pictures[0], found(m, scores=[0.5])) for m in (square(0, 0), square(60, 50))]
    assert evaluate(truth, parts).box["AP"] == pytest.approx(1)
    assert measure(truth, []).box["AP"] == 0
