"""`shards/NNNNN.jsonl`: what was predicted, kept in files that appear whole and never change.

A shard holds whole planned batches. Its first line is a head that lists its pictures:

    {"schema": 1, "shard": 0, "pictures": [{"file", "batch", "bytes", "height", "width", "objects"}, …]}

(`error` in place of the last three where a picture failed; `bytes` is the length of its row), so that a resume reads
heads only. Then follows a row per picture (`segcli.prediction.recording`). Of several rows for a picture the one in
the latest shard counts, if it belongs to the batch in which the plan has the picture now.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from segcli.errors import DataError
from segcli.files import atomic_writer
from segcli.prediction.plan import Plan, read_plan

FOLDER = "shards"
SCHEMA = 1
MAX_PICTURES = 256
MAX_SECONDS = 30.0
MAX_BYTES = 32 << 20  # of rows, which wait in memory: masks of huge pictures close a shard early

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a picture's row is, and what its head says.

    Attributes:
        shard: number of the file.
        offset: of the row in it, bytes.
        length: of the row, bytes.
        objects: how many; 0 for a failed picture.
        size: (H, W) in pixels; None for a failed picture.
        error: why it failed.
    """

    shard: int
    offset: int
    length: int
    objects: int = 0
    size: tuple[int, int] | None = None
    error: str | None = None


Index = dict[str, Entry]


def shard_path(out: Path, number: int) -> Path:
    """The file of one shard."""
    return out / FOLDER / f"{number:05d}.jsonl"


def shard_numbers(out: Path) -> list[int]:
    """Numbers of the shards that are there, ascending."""
    stems = (path.stem for path in (out / FOLDER).glob("*.jsonl"))
    return sorted(int(stem) for stem in stems if stem.isdecimal())


def read_index(out: Path, plan: Plan) -> Index:
    """Where the row that counts is, of each planned picture that has one. Reads heads only.

    Raises:
        DataError: a shard is damaged.
    """
    index: Index = {}
    for number in shard_numbers(out):
        for key, batch, entry in _read_head(out, number):
            planned = plan.current.get(key)
            if planned is not None and planned.batch == batch:
                index[key] = entry
    return index


def _read_head(out: Path, number: int) -> list[tuple[str, int, Entry]]:
    path = shard_path(out, number)
    try:
        with path.open("rb") as stream:
            line = stream.readline()
            head = json.loads(line)
        entries, end = _entries(head, number, len(line))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(_damaged(path, f"its head cannot be read, {error!r}")) from error
    if end != path.stat().st_size:
        raise DataError(_damaged(path, f"{path.stat().st_size} bytes, its head says {end}"))
    return entries


def _entries(head: Row, number: int, offset: int) -> tuple[list[tuple[str, int, Entry]], int]:
    if head["schema"] != SCHEMA:
        raise ValueError(f"schema {head['schema']}, expected {SCHEMA}")
    entries = []
    for row in head["pictures"]:
        size = None if "error" in row else (row["height"], row["width"])
        entry = Entry(number, offset, row["bytes"], row.get("objects", 0), size, row.get("error"))
        entries.append((row["file"], row["batch"], entry))
        offset += row["bytes"]
    return entries, offset


def _damaged(path: Path, found: str) -> str:
    return f"{path}: damaged ({found}); delete it and run again to predict its pictures anew"


def read_rows(out: Path, index: Index, keys: Iterable[str]) -> Iterator[Row]:
    """The rows of those of `keys` that have one, in that order, one at a time.

    Raises:
        DataError: a shard is damaged.
    """
    opened, stream = -1, None
    try:
        for key in keys:
            entry = index.get(key)
            if entry is None:
                continue
            if stream is None or entry.shard != opened:
                if stream is not None:
                    stream.close()
                opened, stream = entry.shard, shard_path(out, entry.shard).open("rb")
            stream.seek(entry.offset)
            yield _parse(stream.read(entry.length), key, shard_path(out, entry.shard))
    finally:
        if stream is not None:
            stream.close()


def _parse(line: bytes, key: str, path: Path) -> Row:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(_damaged(path, f"row of {key}: {error}")) from error
    if not isinstance(row, dict) or row.get("file") != key:
        raise DataError(_damaged(path, f"not the row of {key} where its head says"))
    return row


def latest_rows(out: Path) -> Iterator[Row]:
    """The row that counts of every picture of an OUT folder, failed ones too, in natural order of their keys."""
    plan = read_plan(out)
    yield from read_rows(out, read_index(out, plan), plan.order())


class ShardWriter:
    """Collects whole batches and writes them out as shards; used as a context.

    On leaving the context, for whatever reason, the batches that are finished are committed.
    """

    def __init__(self, out: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._clock = clock
        self._next = max(shard_numbers(out), default=-1) + 1
        self._batches: list[list[tuple[Row, bytes]]] = []
        self._opened = 0.0

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.commit()

    def add(self, rows: Sequence[Row]) -> None:
        """Take the rows of one whole batch; closes the shard when it is full or 30 s old."""
        if not self._batches:
            self._opened = self._clock()
        self._batches.append([_line_and_head(row) for row in rows])
        pictures = sum(len(batch) for batch in self._batches)
        weight = sum(head["bytes"] for batch in self._batches for head, _ in batch)
        old = self._clock() - self._opened >= MAX_SECONDS
        if pictures >= MAX_PICTURES or weight >= MAX_BYTES or old:
            self.commit()

    def commit(self) -> None:
        """Write what is collected as a shard of its own."""
        if not self._batches:
            return
        rows = [row for batch in self._batches for row in batch]
        head = {"schema": SCHEMA, "shard": self._next, "pictures": [head for head, _ in rows]}
        with atomic_writer(shard_path(self._out, self._next)) as stream:
            stream.write(encode(head))
            stream.writelines(line for _, line in rows)
        self._batches = []
        self._next += 1


def _line_and_head(row: Row) -> tuple[Row, bytes]:
    line = encode(row)
    head = {"file": row["file"], "batch": row["batch"], "bytes": len(line)}
    if "error" in row:
        return {**head, "error": row["error"]}, line
    size = {"height": row["height"], "width": row["width"]}
    return {**head, **size, "objects": len(row["objects"])}, line


def encode(row: Row) -> bytes:
    """One line of JSON, UTF-8. Half a surrogate pair, which UTF-8 cannot hold, stays escaped."""
    text = json.dumps(row, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace") + b"\n"
