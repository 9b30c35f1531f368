"""What people and programs get to read."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from segcli.annotations import Dataset, Picture
from segcli.categories import Categories
from segcli.evaluation.coco import evaluate
from segcli.evaluation.metrics import ClassMetrics, Metrics
from segcli.evaluation.report import as_json, save, show


@pytest.fixture
def metrics() -> Metrics:
    """Of one empty picture, with numbers put in."""
    truth = Dataset(
        Path("t.json"), None, (Picture(1, "a", None, (4, 4)),), Categories.from_names(["a", "b"])
    )
    classes = [
        ClassMetrics("bad\x1b[31m", 1, 0.25, None, 3, 4),
        ClassMetrics("b", 2, None, None, 0, 0),
    ]
    empty = evaluate(truth, [])
    return replace(empty, box={**empty.box, "AP": 0.12345}, mask=None, per_class=classes)


def test_tables(metrics: Metrics, capsys: pytest.CaptureFixture[str]) -> None:
    """Three decimals, a dash where there is nothing, names escaped, classes without anything left out and counted."""
    show(metrics)
    out, err = capsys.readouterr()
    cells = [[c.strip() for c in line.split("│")[1:-1]] for line in out.splitlines() if "│" in line]
    assert ["AP", "0.123", "–"] in cells
    assert ["AR100", "–", "–"] in cells
    assert ["bad\\x1b[31m", "0.250", "–", "3", "4"] in cells
    assert "\x1b" not in out
    assert not any(row[0] == "b" for row in cells)
    assert "1 classes with neither objects nor detections" in err


def test_json_is_the_metrics(metrics: Metrics) -> None:
    """The text is JSON and holds the numbers in full."""
    assert json.loads(as_json(metrics)) == metrics.to_json()
    assert json.loads(as_json(metrics))["box"]["AP"] == 0.12345


def test_save(metrics: Metrics, tmp_path: Path) -> None:
    """The folder gets metrics.json and the config.toml by which it is known as ours."""
    path = save(
        metrics, tmp_path / "a" / "b", settings={"max_dets": 7}, resolved={"x": None, "y": 1}
    )
    assert path == tmp_path / "a" / "b" / "metrics.json"
    assert path.read_text() == as_json(metrics)
    table = tomllib.loads((path.parent / "config.toml").read_text())
    assert table["command"] == "eval"
    assert table["settings"] == {"max_dets": 7}
    assert table["resolved"] == {"y": 1}
