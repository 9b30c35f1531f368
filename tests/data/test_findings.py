"""Loosely written numbers and ids, and messages that stay short."""

from __future__ import annotations

from typing import Any

import pytest

from segcli.data.findings import IdTable, as_id, as_number, short


@pytest.mark.parametrize(
    ("value", "identifier", "number"),
    [
        pytest.param(None, None, None, id="null"),
        pytest.param("", None, None, id="empty"),
        pytest.param(True, None, None, id="true"),
        pytest.param(0, 0, 0.0, id="zero"),
        pytest.param("007", "007", 7.0, id="text"),
        pytest.param(3.0, 3, 3.0, id="whole"),
        pytest.param(2.5, None, 2.5, id="broken"),
        pytest.param("x", "x", None, id="word"),
        pytest.param(float("nan"), None, None, id="nan"),
        pytest.param("inf", "inf", None, id="infinite"),
        pytest.param(10**400, 10**400, None, id="endless"),
        pytest.param([1], None, None, id="list"),
    ],
)
def test_loose_values(value: Any, identifier: Any, number: float | None) -> None:
    """Ids are int or non-empty text, numbers are finite; whatever else is none."""
    assert as_id(value) == identifier
    assert as_number(value) == number


def test_lookup_by_text() -> None:
    """The exact id wins; else 7 and "7" find each other."""
    table = IdTable({7: "number", "8": "text", 9: "nine", "9": "word"})
    assert [table.get(i) for i in (7, "7", 8, "8", 9, "9", "07", 1)] == [
        *("number", "number", "text", "text", "nine", "word"),
        *(None, None),
    ]
    assert list(table.ids()) == [7, "8", 9, "9"]


@pytest.mark.parametrize(
    "value", [pytest.param("a" * 10**6, id="text"), pytest.param([1] * 10**6, id="list")]
)
def test_short(value: Any) -> None:
    """A vast value is cut to one short line."""
    assert len(short(value)) <= 60
    assert short([1, 2]) == "[1, 2]"
