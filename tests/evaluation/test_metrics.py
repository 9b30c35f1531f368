"""The numbers that are read off the curves."""

from __future__ import annotations

import json

import numpy as np
import pytest

from segcli.evaluation.metrics import ClassMetrics, Curves, Metrics

LIMITS = (1, 10, 100)


def curves(value: float = -1.0) -> Curves:
    """Two classes, constant everywhere."""
    return Curves(
        precision=np.full((10, 101, 2, 4, 3), value),
        recall=np.full((10, 2, 4, 3), value),
        scores=np.full((10, 101, 2, 4, 3), value),
        limits=LIMITS,
    )


def test_absent_is_none() -> None:
    """Where there is no truth at all, nothing is a number."""
    assert set(curves().summary().values()) == {None}
    assert curves().class_ap(1) is None


@pytest.mark.parametrize(
    ("name", "place"),
    [
        pytest.param("AP50", np.s_[0, :, :, 0, -1]),
        pytest.param("AP75", np.s_[5, :, :, 0, -1]),
        pytest.param("APs", np.s_[:, :, :, 1, -1]),
        pytest.param("APm", np.s_[:, :, :, 2, -1]),
        pytest.param("APl", np.s_[:, :, :, 3, -1]),
    ],
)
def test_each_precision_has_its_place(name: str, place: tuple[object, ...]) -> None:
    """Each AP reads its own threshold and area at the last limit, and no other number does so alone."""
    made = curves()
    made.precision[place] = 0.25
    numbers = {k: v for k, v in made.summary().items() if v is not None}
    assert numbers.pop(name) == 0.25
    assert set(numbers) <= {"AP"}


@pytest.mark.parametrize(
    ("name", "place"),
    [
        pytest.param("AR1", np.s_[:, :, 0, 0]),
        pytest.param("AR10", np.s_[:, :, 0, 1]),
        pytest.param("AR100", np.s_[:, :, 0, 2]),
        pytest.param("ARs", np.s_[:, :, 1, 2]),
        pytest.param("ARm", np.s_[:, :, 2, 2]),
        pytest.param("ARl", np.s_[:, :, 3, 2]),
    ],
)
def test_each_recall_has_its_place(name: str, place: tuple[object, ...]) -> None:
    """Each AR reads its own area and limit."""
    made = curves()
    made.recall[place] = 0.75
    assert {k: v for k, v in made.summary().items() if v is not None} == {name: 0.75}


def test_classes_are_apart() -> None:
    """A class without truth has no AP and does not pull down the mean."""
    made = curves()
    made.precision[:, :, 1] = 0.5
    assert made.class_ap(0) is None
    assert made.class_ap(1) == made.summary()["AP"] == 0.5


def test_as_json() -> None:
    """Absent numbers are null, everything is plain JSON, curves stay out."""
    metrics = Metrics(
        box={"AP": 0.5, "APs": None},
        mask=None,
        per_class=[ClassMetrics("a", "x1", 0.5, None, 3, 4)],
        max_dets=100,
        evaluator=("pycocotools", "2"),
        counts={"pictures": 2},
        box_curves=curves(),
        mask_curves=None,
    )
    assert json.loads(json.dumps(metrics.to_json(), allow_nan=False)) == {
        "box": {"AP": 0.5, "APs": None},
        "mask": None,
        "per_class": [
            {
                "id": "x1",
                "name": "a",
                "box": {"AP": 0.5},
                "mask": {"AP": None},
                "truth": 3,
                "detections": 4,
            }
        ],
        "max_dets": 100,
        "evaluator": {"name": "pycocotools", "version": "2"},
        "counts": {"pictures": 2},
    }
