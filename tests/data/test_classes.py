"""The `categories` list: classes by name, labels by id, doubles named."""

from __future__ import annotations

from typing import Any

import pytest

from segcli.data.classes import read_categories
from segcli.data.findings import Findings


@pytest.mark.parametrize(
    ("rows", "names", "ids", "label", "kinds"),
    [
        pytest.param([], (), (), None, [], id="empty"),
        pytest.param([(5, "b"), (0, "a")], ("a", "b"), (0, 5), 1, [], id="sparse-0-based"),
        pytest.param([("y", "b"), ("5", "a")], ("a", "b"), ("5", "y"), 0, [], id="text-ids"),
        pytest.param([(5, "a"), (5, "b")], ("a",), (5,), 0, ["category id used twice"], id="id"),
        pytest.param(
            [(1, "a"), (5, "a"), (6, "c")],
            ("a", "c"),
            (1, 6),
            0,
            ["class name used twice"],
            id="name",
        ),
        pytest.param([(5, None)], ("class 5",), (5,), 0, ["category without name"], id="no-name"),
        pytest.param([(5, " ")], ("class 5",), (5,), 0, ["category without name"], id="blank-name"),
        pytest.param([(5, 7)], ("7",), (5,), 0, [], id="number-as-name"),
        pytest.param([(None, "a"), (5, "b")], ("b",), (5,), 0, ["category without id"], id="no-id"),
    ],
)
def test_categories(
    rows: list[tuple[Any, Any]],
    names: tuple[str, ...],
    ids: tuple[Any, ...],
    label: int | None,
    kinds: list[str],
) -> None:
    """Classes are ordered by id and unique by name; id 5 finds its label, as number and as text."""
    findings = Findings("a.json")
    table = [{"id": i, "name": n} for i, n in rows]
    categories, labels = read_categories(table, findings)
    assert (categories.names, categories.ids) == (names, ids)
    assert (labels.get(5), labels.get("5")) == (label, label)
    assert [p.kind for p in findings.rows] == kinds


def test_row_of_another_kind() -> None:
    """A row that is no object is left out by its place."""
    findings = Findings("a.json")
    categories, _ = read_categories(["x", {"id": 1, "name": "cell"}], findings)
    assert categories.names == ("cell",)
    assert [p.where for p in findings.rows] == ["a.json: category 1"]
