"""The two tables for spreadsheets."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segcli.categories import Categories
from segcli.instances import Instances
from segcli.masks import Masks
from segcli.prediction.pipeline import Outcome, Source
from segcli.prediction.recording import row_of
from segcli.prediction.tables import write_tables

CATEGORIES = Categories(("cat", "=1+1", "N/A"), (1, 2, 3))


def row(key: str, found: Instances) -> dict[str, Any]:
    return row_of(Outcome(Source(key, Path(key)), found, None, found.image_size), 0)


def example() -> Instances:
    """An L of 3 pixels (label 0), one pixel (label 1, score 0.4), a square of 4 (label 1)."""
    dense = np.zeros((3, 4, 5), bool)
    dense[0, 0:2, 0] = dense[0, 1, 1] = True
    dense[1, 3, 4] = True
    dense[2, 1:3, 2:4] = True
    masks = Masks.from_dense(dense)
    scores = np.array([0.75, 0.4, 0.5], np.float32)
    return Instances((4, 5), masks.boxes(), np.array([0, 1, 1], np.int32), scores, masks)


def read(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))


def test_no_pictures(tmp_path: Path) -> None:
    """Without rows there are only headers; placeholder classes have no column, `=` is disarmed there too."""
    write_tables(tmp_path, [], CATEGORIES, draw_score=0.5)
    assert len(read(tmp_path / "instances.csv")) == 1
    assert read(tmp_path / "counts.csv") == [["file", "cat", "'=1+1", "total"]]


def test_hand_worked(tmp_path: Path) -> None:
    """Numbers, boxes, areas, shares and centroids as worked out by hand; objects below the score are left out."""
    write_tables(tmp_path, [row("a.png", example())], CATEGORIES, draw_score=0.5)
    lines = read(tmp_path / "instances.csv")
    assert lines[1:] == [
        ["a.png", "1", "cat", "0.75", "0.00", "0.00", "2.00", "2.00", "3", "0.15", "0.83", "1.17"],
        ["a.png", "3", "'=1+1", "0.5", "2.00", "1.00", "2.00", "2.00", "4", "0.2", "3.00", "2.00"],
    ]
    assert len(lines[0]) == len(lines[1])
    assert read(tmp_path / "counts.csv")[1:] == [["a.png", "1", "1", "2"]]


def test_empty_pictures_are_counted(tmp_path: Path) -> None:
    """A picture without objects has a line of zeros, and only the classes asked for have columns."""
    rows = [row("empty.png", Instances.empty((4, 5))), row("a.png", example())]
    write_tables(tmp_path, rows, CATEGORIES, draw_score=0.0, classes=["=1+1"])
    assert read(tmp_path / "counts.csv") == [
        ["file", "'=1+1", "total"],
        ["empty.png", "0", "0"],
        ["a.png", "2", "3"],
    ]


def test_boxes_without_masks(tmp_path: Path) -> None:
    """Without masks area and centroid are the box's."""
    found = replace(example(), masks=None)[[2]]
    write_tables(tmp_path, [row("a.png", found)], CATEGORIES, draw_score=0.5)
    assert read(tmp_path / "instances.csv")[1][8:] == ["4", "0.2", "3.00", "2.00"]


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        pytest.param("=cmd.png", "'=cmd.png", id="formula"),
        pytest.param("+1.png", "'+1.png", id="plus"),
        pytest.param("-1.png", "'-1.png", id="minus"),
        pytest.param("@x.png", "'@x.png", id="at"),
        pytest.param('a,"b"\n.png', 'a,"b"\n.png', id="comma, quotes, line break"),
        pytest.param("ü.png", "ü.png", id="umlaut"),
    ],
)
def test_names_are_text(tmp_path: Path, name: str, cell: str) -> None:
    """A name is never a formula, and whatever it holds it stays one cell."""
    write_tables(tmp_path, [row(name, example())], CATEGORIES, draw_score=0.5)
    assert read(tmp_path / "instances.csv")[1][0] == cell
    assert read(tmp_path / "counts.csv")[1][0] == cell
