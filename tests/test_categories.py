"""Classes and their ids."""

from __future__ import annotations

from typing import Any

import pytest

from segcli.categories import Categories
from segcli.errors import DataError

PLACEHOLDERS = Categories(("cat", "N/A", "dog", "__background__"), (1, 2, 3, 4))


def test_no_classes() -> None:
    """None at all is allowed, and maps nothing."""
    none = Categories.from_coco([])

    assert len(none) == 0
    assert none == Categories.from_names([])
    assert none.label_of_id() == {}
    assert none.label_of_name() == {}
    assert none.to_coco() == []


@pytest.mark.parametrize(
    ("rows", "names", "ids"),
    [
        pytest.param([(1, "cat"), (2, "dog")], ("cat", "dog"), (1, 2), id="in order"),
        pytest.param([(90, "dog"), (3, "cat")], ("cat", "dog"), (3, 90), id="sparse, unsorted"),
        pytest.param([(0, "cat"), (10, "fox"), (9, "dog")], ("cat", "dog", "fox"), (0, 9, 10), id="0"),
        pytest.param([("b", "dog"), ("a", "cat")], ("cat", "dog"), ("a", "b"), id="text ids"),
        pytest.param([("x", "dog"), (10, "cat")], ("cat", "dog"), (10, "x"), id="mixed ids"),
        pytest.param([(1, 5)], ("5",), (1,), id="a name that is a number"),
        pytest.param([(2, "a"), (1, "a")], ("a", "a"), (1, 2), id="equal names"),
    ],
)  # fmt: skip
def test_from_coco(rows: list[tuple[Any, Any]], names: tuple[str, ...], ids: tuple[Any]) -> None:
    """Labels are in the order of ids, numbers as numbers."""
    found = Categories.from_coco({"id": i, "name": n, "supercategory": "x"} for i, n in rows)

    assert found == Categories(names, ids)
    assert Categories.from_coco(found.to_coco()) == found
    assert [found.label_of_id()[i] for i in ids] == list(range(len(ids)))


def test_from_names_numbers_from_one() -> None:
    """Made categories look like COCO's."""
    assert Categories.from_names(["a", "b"]).to_coco() == [
        {"id": 1, "name": "a"},
        {"id": 2, "name": "b"},
    ]


@pytest.mark.parametrize(
    ("names", "ids", "message"),
    [
        pytest.param(("a",), (1, 2), "1 names but 2 ids", id="lengths"),
        pytest.param(("a", "b"), (1, 1), r"unique, found \[1, 1\]", id="equal ids"),
    ],
)
def test_refused(names: tuple[str, ...], ids: tuple[int, ...], message: str) -> None:
    """Ids that are not one to one with names are refused."""
    with pytest.raises(DataError, match=message):
        Categories(names, ids)


def test_placeholders_have_labels_but_no_names() -> None:
    """Slots without a class keep their place and cannot be found by name."""
    assert PLACEHOLDERS.label_of_name() == {"cat": 0, "dog": 2}
    assert [PLACEHOLDERS.is_placeholder(i) for i in range(4)] == [False, True, False, True]
    assert len(PLACEHOLDERS) == 4


def test_the_first_of_two_equal_names_wins() -> None:
    """A name stands for one label."""
    assert Categories(("a", "a"), (7, 8)).label_of_name() == {"a": 0}
