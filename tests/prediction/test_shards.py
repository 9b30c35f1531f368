"""Shards: whole batches, committed whole, read back in order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from segcli.errors import DataError
from segcli.prediction import shards
from segcli.prediction.plan import Plan, append_section, parse
from segcli.prediction.shards import (
    ShardWriter,
    encode,
    latest_rows,
    read_index,
    shard_numbers,
    shard_path,
)
from segcli.prediction.walk import Found


def good(key: str, batch: int, mark: int = 0) -> dict[str, Any]:
    return {
        "file": key,
        "batch": batch,
        "height": 2,
        "width": 3,
        "objects": [{"label": mark, "score": 0.5, "bbox": [0, 0, 1, 1]}],
    }


def bad(key: str, batch: int) -> dict[str, Any]:
    return {"file": key, "batch": batch, "error": "broken"}


def planned(out: Path, keys: Sequence[str], batch_size: int = 2) -> Plan:
    plan = Plan()
    section = plan.section(plan.compare([Found(key, 1, 1) for key in keys]), batch_size)
    append_section(out, section)
    return parse(section)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_nothing_committed(tmp_path: Path) -> None:
    """Without a batch no shard appears, and there are no rows."""
    with ShardWriter(tmp_path):
        pass
    assert shard_numbers(tmp_path) == []
    assert list(latest_rows(tmp_path)) == []


def test_rows_in_natural_order(tmp_path: Path) -> None:
    """Rows come back in the order of the names, failures too, whatever the order they were written in."""
    planned(tmp_path, ["p1", "p2", "p10"], 1)
    with ShardWriter(tmp_path) as writer:
        writer.add([good("p10", 2)])
        writer.commit()
        writer.add([bad("p2", 1)])
        writer.add([good("p1", 0)])
    assert [row["file"] for row in latest_rows(tmp_path)] == ["p1", "p2", "p10"]
    assert shard_numbers(tmp_path) == [0, 1]


def test_the_head_says_what_is_in_the_shard(tmp_path: Path) -> None:
    """The first line lists pictures, batches, sizes and row lengths; the index is made of it alone."""
    plan = planned(tmp_path, ["a", "ü\u2028\n"])
    rows = [good("a", 0), bad("ü\u2028\n", 0)]
    with ShardWriter(tmp_path) as writer:
        writer.add(rows)
    lines = shard_path(tmp_path, 0).read_bytes().split(b"\n")
    assert len(lines) == 4
    head = json.loads(lines[0])
    assert head["pictures"][0]["objects"] == 1
    assert head["pictures"][1]["error"] == "broken"
    assert [json.loads(line) for line in lines[1:3]] == rows
    index = read_index(tmp_path, plan)
    assert index["a"].size == (2, 3)
    assert index["ü\u2028\n"].error == "broken"


def test_full_shards_close(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard closes after enough pictures, and only between batches."""
    monkeypatch.setattr(shards, "MAX_PICTURES", 3)
    planned(tmp_path, [str(i) for i in range(6)])
    with ShardWriter(tmp_path) as writer:
        for batch in range(3):
            writer.add([good(str(2 * batch), batch), good(str(2 * batch + 1), batch)])
    assert shard_numbers(tmp_path) == [0, 1]
    heads = [json.loads(shard_path(tmp_path, n).read_bytes().split(b"\n")[0]) for n in (0, 1)]
    assert [len(head["pictures"]) for head in heads] == [4, 2]


def test_old_and_heavy_shards_close(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After 30 s, or with rows of many bytes, what is there is committed."""
    clock = Clock()
    writer = ShardWriter(tmp_path, clock=clock)
    writer.add([good("a", 0)])
    clock.now = 29.0
    writer.add([good("b", 1)])
    assert shard_numbers(tmp_path) == []
    clock.now = 30.0
    writer.add([good("c", 2)])
    assert shard_numbers(tmp_path) == [0]
    monkeypatch.setattr(shards, "MAX_BYTES", 10)
    writer.add([good("d", 3)])
    assert shard_numbers(tmp_path) == [0, 1]


def test_an_interrupt_commits_what_is_finished(tmp_path: Path) -> None:
    """Whatever ends the writing, finished batches are on disk."""
    planned(tmp_path, ["a"])

    def interrupted() -> None:
        with ShardWriter(tmp_path) as writer:
            writer.add([good("a", 0)])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [row["file"] for row in latest_rows(tmp_path)] == ["a"]


def test_the_latest_row_of_the_planned_batch_counts(tmp_path: Path) -> None:
    """A batch that ran again replaces its rows; rows of a batch that a picture left count no more."""
    plan = planned(tmp_path, ["a", "b"], 1)
    for mark in (1, 2):
        with ShardWriter(tmp_path) as writer:
            writer.add([good("a", 0, mark)])
    with ShardWriter(tmp_path) as writer:
        writer.add([good("b", 7)])
        writer.add([good("stranger", 0)])
    rows = list(latest_rows(tmp_path))
    assert [(r["file"], r["objects"][0]["label"]) for r in rows] == [("a", 2)]
    assert set(read_index(tmp_path, plan)) == {"a"}


def test_foreign_files_among_shards_are_passed_over(tmp_path: Path) -> None:
    """Only numbered files are shards; what a killed process left behind is not."""
    folder = tmp_path / "shards"
    folder.mkdir()
    (folder / ".00000.jsonl.abc.tmp").write_bytes(b"{")
    (folder / "notes.jsonl").write_bytes(b"{")
    assert shard_numbers(tmp_path) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(lambda _: b"", "head cannot be read", id="empty"),
        pytest.param(lambda data: data[:-5], "its head says", id="cut off"),
        pytest.param(
            lambda data: data.replace(b'"schema":1', b'"schema":7'), "schema 7", id="newer"
        ),
        pytest.param(lambda _: b'{"schema":1}\n', "KeyError", id="no pictures"),
        pytest.param(lambda data: data[:-10] + b"#" * 10, "row of a", id="row damaged"),
        pytest.param(
            lambda data: data.replace(b'\n{"file":"a"', b'\n{"file":"b"'),
            "not the row",
            id="wrong row",
        ),
    ],
)
def test_damage_is_named(tmp_path: Path, damage: Any, message: str) -> None:
    """A damaged shard is refused by name, with the remedy."""
    planned(tmp_path, ["a"])
    with ShardWriter(tmp_path) as writer:
        writer.add([good("a", 0)])
    path = shard_path(tmp_path, 0)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=message) as caught:
        list(latest_rows(tmp_path))
    assert "00000.jsonl: damaged" in str(caught.value)
    assert "delete it and run again" in str(caught.value)


def test_half_a_surrogate_pair_stays_json() -> None:
    """Text that UTF-8 cannot hold (in an error message, say) is escaped, not fatal."""
    line = encode({"error": "caf\udce9"})
    assert json.loads(line.decode("utf-8")) == {"error": "caf\udce9"}
