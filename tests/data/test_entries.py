"""The `images` list: ids of any kind, sizes that make sense, doubles named."""

from __future__ import annotations

from typing import Any

import pytest

from segcli.data.entries import LEFT_OUT, read_entries
from segcli.data.findings import Findings


def picture(number: Any = 1, **changes: Any) -> dict[str, Any]:
    return {"id": number, "file_name": f"{number}.png", "height": 20, "width": 30, **changes}


@pytest.mark.parametrize(
    ("rows", "ids", "kinds"),
    [
        pytest.param([], [], [], id="empty"),
        pytest.param([picture(0), picture(10**12)], [0, 10**12], [], id="0-based-sparse"),
        pytest.param([picture("007"), picture("x/y")], ["007", "x/y"], [], id="text"),
        pytest.param([picture(2.0)], [2], [], id="whole-float"),
        pytest.param(
            [picture(), picture(file_name="2.png")], [1], ["picture id used twice"], id="same-id"
        ),
        pytest.param([picture(None)], [], ["picture without id"], id="null-id"),
        pytest.param([picture(1.5)], [], ["picture without id"], id="broken-id"),
        pytest.param([picture(file_name="")], [], ["picture without file_name"], id="nameless"),
        pytest.param(
            [picture(file_name=7)], [], ["picture without file_name"], id="number-as-name"
        ),
        pytest.param([3, picture()], [1], ["row that is no object"], id="no-object"),
        pytest.param(
            [picture(1), picture(2, file_name="1.png")],
            [1],
            ["file_name used twice"],
            id="same-name",
        ),
    ],
)
def test_entries(rows: list[Any], ids: list[Any], kinds: list[str]) -> None:
    """Good rows are kept in the order of the file, the others named."""
    findings = Findings("a.json")
    entries, _ = read_entries(rows, findings, need_names=True)
    assert [entry.id for entry in entries] == ids
    assert [p.kind for p in findings.rows] == kinds


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        pytest.param({}, (20, 30), id="plain"),
        pytest.param({"height": "20", "width": 30.0}, (20, 30), id="loose"),
        pytest.param({"height": 0}, None, id="zero"),
        pytest.param({"height": -20}, None, id="negative"),
        pytest.param({"width": 1.5}, None, id="broken"),
        pytest.param({"width": None}, None, id="null"),
        pytest.param({"width": 10**12}, None, id="vast"),
    ],
)
def test_sizes(changes: dict[str, Any], size: tuple[int, int] | None) -> None:
    """A size is (H, W); one that makes no sense counts as absent."""
    entries, _ = read_entries([picture(**changes)], Findings("a.json"), need_names=True)
    assert entries[0].size == size


def test_ids_lead_to_entries() -> None:
    """Every id of the file leads to its entry, to the one that has its file, or to none."""
    rows = [picture(1, file_name=None), picture(2), picture(3), picture(4, file_name="2.png")]
    _, indices = read_entries(rows, Findings("a.json"), need_names=True)
    assert [indices.get(i) for i in (1, 2, 3, 4, 5)] == [LEFT_OUT, 0, 1, 0, None]


def test_names_not_needed() -> None:
    """Where pictures are joined by id alone, one without a name is kept under its id."""
    findings = Findings("a.json")
    entries, _ = read_entries([picture(7, file_name=None)], findings, need_names=False)
    assert entries[0].file_name == "7"
    assert [p.left_out for p in findings.rows] == [False]
