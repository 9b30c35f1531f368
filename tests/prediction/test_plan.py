"""The plan: batches, further sections, and what counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from segcli.errors import DataError
from segcli.prediction.plan import (
    Plan,
    append_section,
    parse,
    read_plan,
    refuse_vanished,
)
from segcli.prediction.walk import Found


def found(*keys: str, mtime: int = 1) -> list[Found]:
    return [Found(key, 10, mtime) for key in keys]


def grown(plan: Plan, pictures: list[Found], batch_size: int = 2) -> Plan:
    return parse(plan.section(plan.compare(pictures), batch_size), plan)


def batches(plan: Plan) -> list[list[str]]:
    return [[row.key for row in batch] for batch in plan.by_batch()]


def test_nothing_to_plan() -> None:
    """No pictures, no section."""
    plan = Plan()
    assert plan.section(plan.compare([]), 4) == b""
    assert batches(plan) == []


@pytest.mark.parametrize(
    ("batch_size", "expected"),
    [
        pytest.param(1, [["a"], ["b"], ["c"]], id="one"),
        pytest.param(2, [["a", "b"], ["c"]], id="rest"),
        pytest.param(9, [["a", "b", "c"]], id="all"),
    ],
)
def test_batches(batch_size: int, expected: list[list[str]]) -> None:
    """Pictures are cut into batches in the order given."""
    assert batches(grown(Plan(), found("a", "b", "c"), batch_size)) == expected


@pytest.mark.parametrize(
    ("upright", "expected"),
    [
        pytest.param("-----", [["a", "b"], ["c", "d"], ["e"]], id="all wide"),
        pytest.param("|-|-|", [["a", "c"], ["b", "d"], ["e"]], id="in turn"),
        pytest.param("-|||-", [["a", "e"], ["b", "c"], ["d"]], id="a full one is closed"),
        pytest.param("----|", [["a", "b"], ["c", "d"], ["e"]], id="one alone"),
    ],
)
def test_upright_pictures_have_batches_of_their_own(
    upright: str, expected: list[list[str]]
) -> None:
    """Padded together they would all be squares."""
    plan = Plan()
    changes = plan.compare(found(*"abcde"))
    plan = parse(plan.section(changes, 2, [kind == "|" for kind in upright]), plan)
    assert batches(plan) == expected
    assert plan.order() == list("abcde")


def test_new_changed_and_vanished() -> None:
    """New and changed pictures form batches of their own; vanished ones are gone; others stay where they are."""
    plan = grown(Plan(), found("a", "b", "c", "d"))
    now = [*found("a", "d", "e"), *found("b", mtime=2)]
    assert plan.compare(now).gone == ("c",)
    plan = grown(plan, now)
    assert batches(plan) == [["a"], ["d"], ["b", "e"]]
    assert (plan.sections, plan.batches) == (2, 3)
    assert plan.order() == ["a", "b", "d", "e"]


def test_a_picture_that_comes_back_is_new() -> None:
    """What vanished and returns gets a new batch: nobody knows whether it is the same."""
    plan = grown(grown(grown(Plan(), found("a", "b")), found("a")), found("a", "b"))
    assert batches(plan) == [["a"], ["b"]]
    assert plan.current["b"].batch == 1


def test_there_and_back(tmp_path: Path) -> None:
    """Sections on disk read back as what was planned; an absent file is an empty plan."""
    assert read_plan(tmp_path) == Plan()
    plan = Plan()
    for pictures in (found("ü\n.png", "b"), found("b")):
        section = plan.section(plan.compare(pictures), 2)
        append_section(tmp_path, section)
        plan = parse(section, plan)
    assert read_plan(tmp_path) == plan
    assert [p.name for p in tmp_path.iterdir()] == ["plan.jsonl"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(b"{\n", "line 1: no JSON", id="no json"),
        pytest.param(b"[]\n", "expected an object, found list", id="no object"),
        pytest.param(b'{"file": "a"}\n', "line 1: KeyError", id="fields lack"),
        pytest.param(b'{"section": 0, "schema": 9}\n', "schema 9, expected 1", id="newer"),
    ],
)
def test_damaged(tmp_path: Path, text: bytes, message: str) -> None:
    """A plan that cannot be used is refused by name and line."""
    (tmp_path / "plan.jsonl").write_bytes(text)
    with pytest.raises(DataError, match=message) as caught:
        read_plan(tmp_path)
    assert "plan.jsonl" in str(caught.value)


@pytest.mark.parametrize(
    ("gone", "refused"),
    [
        pytest.param(0, False, id="none"),
        pytest.param(2, False, id="a tenth"),
        pytest.param(3, True, id="more"),
        pytest.param(20, True, id="all"),
    ],
)
def test_many_vanished_are_refused(gone: int, refused: bool) -> None:
    """Over a tenth of the pictures gone looks like an unmounted disk."""
    pictures = found(*(f"{i}" for i in range(20)))
    plan = grown(Plan(), pictures)
    changes = plan.compare(pictures[gone:])
    if refused:
        with pytest.raises(DataError, match=f"{gone} of 20 planned .* --drop-vanished"):
            refuse_vanished(plan, changes, Path("photos"))
    else:
        refuse_vanished(plan, changes, Path("photos"))
