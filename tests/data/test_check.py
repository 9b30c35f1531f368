"""The report on a dataset: counts that a hand count gives."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from segcli.annotations import Annotation, Dataset, Picture, Problem
from segcli.categories import Categories
from segcli.data.check import check

CLASSES = Categories(("cell", "dust", "unseen"), (3, 5, 9))


def annotation(label: int, area: float, *, iscrowd: bool = False) -> Annotation:
    points = np.array([[0.0, 0], [4, 0], [4, 4]])
    return Annotation(1, label, np.array([0.0, 0, 4, 4]), area, iscrowd, polygons=(points,))


def dataset(
    *pictures: tuple[tuple[int, int], list[Annotation]], problems: tuple[Problem, ...] = ()
) -> Dataset:
    made = [
        Picture(n, f"{n}.png", None, size, tuple(found)) for n, (size, found) in enumerate(pictures)
    ]
    return Dataset(Path("a.json"), None, tuple(made), CLASSES, problems)


def test_empty() -> None:
    """A dataset without pictures has a report of zeros."""
    report = check(dataset())
    assert (report.pictures, report.objects, report.crowds, report.left_out) == (0, 0, 0, 0)
    assert report.objects_per_picture == {"min": 0, "median": 0, "max": 0}
    assert report.object_sizes == {"small": 0, "medium": 0, "large": 0}
    assert [c.objects for c in report.classes] == [0, 0, 0]


def test_counts() -> None:
    """Objects, crowds, classes and sizes are counted, crowds apart from objects."""
    report = check(
        dataset(
            ((20, 30), [annotation(0, 1023.9), annotation(0, 1024), annotation(1, 9216)]),
            ((20, 30), [annotation(0, 9216.1), annotation(1, 5, iscrowd=True)]),
            ((30, 20), []),
            ((20, 30), [annotation(1, 5, iscrowd=True)]),
        )
    )
    assert (report.pictures, report.pictures_without_objects) == (4, 2)
    assert (report.objects, report.crowds) == (4, 2)
    assert report.objects_per_picture == {"min": 0, "median": 0.5, "max": 3}
    assert report.object_sizes == {"small": 1, "medium": 2, "large": 1}
    assert report.picture_sizes == (((20, 30), 3), ((30, 20), 1))
    rows = [(c.id, c.name, c.objects, c.crowds, c.pictures) for c in report.classes]
    assert rows == [(3, "cell", 3, 0, 2), (5, "dust", 1, 2, 1), (9, "unseen", 0, 0, 0)]


def test_problems() -> None:
    """Problems are grouped by kind, what was left out first, with three examples each."""
    noted = [Problem("note", f"n{i}", "f", "r", left_out=False) for i in range(9)]
    lost = [Problem("rare", "x", "f", "r")] + [Problem("often", f"{i}", "f", "r") for i in range(5)]
    report = check(dataset(problems=(*noted, *lost)))
    groups = [(g.kind, g.count, g.left_out) for g in report.problems]
    assert groups == [("often", 5, True), ("rare", 1, True), ("note", 9, False)]
    assert [e.where for e in report.problems[0].examples] == ["0", "1", "2"]
    assert report.left_out == 6


def test_json() -> None:
    """The report is plain JSON with the same names."""
    problem = Problem("often", "x", "f", "r")
    report = check(dataset(((20, 30), [annotation(0, 5)]), problems=(problem,)))
    table = json.loads(json.dumps(report.to_json()))
    assert table["picture_sizes"] == [[[20, 30], 1]]
    assert table["classes"][0] == {
        "id": 3,
        "name": "cell",
        "objects": 1,
        "crowds": 0,
        "pictures": 1,
    }
    assert table["problems"][0]["examples"][0]["where"] == "x"
    assert (table["source"], table["images"], table["left_out"]) == ("a.json", None, 1)


@pytest.mark.parametrize("module", ["segcli.data.check", "segcli.data.locate", "segcli.cli.data"])
def test_imports_no_torch(module: str) -> None:
    """Looking at a dataset does not wait for torch."""
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
