"""`plan.jsonl`: which pictures a job covers and how they are cut into batches. Written before anything is predicted.

The file is a sequence of sections, each a head and a row per picture; the latest row of a picture counts:

    {"schema": 1, "section": 0, "batch_size": 2}
    {"file": "a.jpg", "bytes": 1234, "mtime_ns": 17000…, "batch": 0}
    {"schema": 1, "section": 1, "batch_size": 2}
    {"file": "a.jpg", "gone": true}

Batches are fixed because a picture's padding, and so the last digits of its result, depends on its batch mates.
Upright pictures and the others have batches of their own: together they would be padded to squares.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segcli.errors import DataError
from segcli.files import write_bytes
from segcli.prediction.walk import Found, natural_key

FILE_NAME = "plan.jsonl"
SCHEMA = 1
_MANY = 0.1  # share of vanished pictures beyond which an unmounted disk is likelier than tidying up


@dataclass(frozen=True, slots=True)
class Planned:
    """One picture in its batch; `bytes` and `mtime_ns` as it was found."""

    key: str
    bytes: int
    mtime_ns: int
    batch: int


@dataclass(frozen=True)
class Changes:
    """How a folder differs from a plan.

    Attributes:
        added: new and changed pictures, in natural order.
        gone: keys of planned pictures that are no longer there.
    """

    added: tuple[Found, ...]
    gone: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.gone)


@dataclass(frozen=True)
class Plan:
    """A job's pictures.

    Attributes:
        current: the row that counts of each picture that is there, by key.
        sections: how many sections were written.
        batches: how many batches were numbered.
    """

    current: dict[str, Planned] = field(default_factory=dict)
    sections: int = 0
    batches: int = 0

    def order(self) -> list[str]:
        """Keys in natural order: the order of everything that is exported."""
        return sorted(self.current, key=natural_key)

    def by_batch(self) -> list[list[Planned]]:
        """Batches in the order in which they are run, without pictures that left them since."""
        batches: dict[int, list[Planned]] = defaultdict(list)
        for row in self.current.values():
            batches[row.batch].append(row)
        return [
            sorted(batches[number], key=lambda row: natural_key(row.key))
            for number in sorted(batches)
        ]

    def compare(self, pictures: Sequence[Found]) -> Changes:
        """What a further section has to say so that the plan fits the pictures found."""
        there = {found.key for found in pictures}
        added = tuple(found for found in pictures if not self._same(found))
        return Changes(added, tuple(key for key in self.order() if key not in there))

    def _same(self, found: Found) -> bool:
        row = self.current.get(found.key)
        return row is not None and (row.bytes, row.mtime_ns) == (found.bytes, found.mtime_ns)

    def section(
        self, changes: Changes, batch_size: int, upright: Sequence[bool] | None = None
    ) -> bytes:
        """The text of a further section; empty where nothing changed.

        Args:
            changes: what it has to say.
            batch_size: most pictures of a batch.
            upright: of each added picture, whether it is taller than wide; None = they are not told apart.
        """
        if not changes:
            return b""
        head: dict[str, Any] = {
            "schema": SCHEMA,
            "section": self.sections,
            "batch_size": batch_size,
        }
        numbers = _batch_numbers(upright or [False] * len(changes.added), batch_size)
        gone: list[dict[str, Any]] = [{"file": key, "gone": True} for key in changes.gone]
        added: list[dict[str, Any]] = [
            {
                "file": found.key,
                "bytes": found.bytes,
                "mtime_ns": found.mtime_ns,
                "batch": self.batches + number,
            }
            for found, number in zip(changes.added, numbers, strict=True)
        ]
        return b"".join(_line(row) for row in (head, *gone, *added))


def _batch_numbers(upright: Sequence[bool], batch_size: int) -> list[int]:
    """For each picture the number of its batch: each kind fills one, in order; numbered as they are begun."""
    filling: dict[bool, list[int]] = {}  # kind -> number of its batch, pictures in it
    numbers: list[int] = []
    begun = 0
    for kind in upright:
        batch = filling.get(kind)
        if batch is None or batch[1] == batch_size:
            batch = filling[kind] = [begun, 0]
            begun += 1
        batch[1] += 1
        numbers.append(batch[0])
    return numbers


def refuse_vanished(plan: Plan, changes: Changes, root: Path) -> None:
    """Stop where so many pictures vanished that the folder itself may be missing.

    Raises:
        DataError: over a tenth of the planned pictures are gone.
    """
    planned, gone = len(plan.current), len(changes.gone)
    if gone > _MANY * planned:
        raise DataError(
            f"{root}: {gone} of {planned} planned pictures are no longer there (first: {changes.gone[0]}); "
            "is a disk not mounted? --drop-vanished goes on without them"
        )


def parse(text: bytes, onto: Plan | None = None) -> Plan:
    """Read the text of a plan, or of a further section of `onto`.

    Raises:
        DataError: a line is damaged.
    """
    onto = onto or Plan()
    current, sections, batches = dict(onto.current), onto.sections, onto.batches
    for number, row in _rows(text):
        try:
            if "section" in row:
                _check_schema(row["schema"])
                sections += 1
            elif row.get("gone"):
                current.pop(row["file"], None)
            else:
                planned = Planned(row["file"], row["bytes"], row["mtime_ns"], row["batch"])
                current[planned.key] = planned
                batches = max(batches, planned.batch + 1)
        except (KeyError, TypeError) as error:
            raise DataError(f"line {number}: {error!r}") from error
    return Plan(current, sections, batches)


def _check_schema(found: int) -> None:
    if found != SCHEMA:
        raise DataError(f"written by another version (schema {found}, expected {SCHEMA})")


def _rows(text: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.split(b"\n")[:-1], 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"line {number}: no JSON ({error})") from error
        if not isinstance(row, dict):
            raise DataError(f"line {number}: expected an object, found {type(row).__name__}")
        yield number, row


def read_plan(out: Path) -> Plan:
    """The plan of an OUT folder; an empty one where there is none yet.

    Raises:
        DataError: the file is damaged.
    """
    path = out / FILE_NAME
    try:
        return parse(path.read_bytes())
    except FileNotFoundError:
        return Plan()
    except DataError as error:
        raise DataError(f"{path}: cannot be used, {error}; start anew with --overwrite") from error


def append_section(out: Path, section: bytes) -> None:
    """Add a section. The file is replaced as a whole, so that no section is ever seen in part."""
    path = out / FILE_NAME
    before = path.read_bytes() if path.exists() else b""
    write_bytes(path, before + section)


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False, separators=(", ", ": ")).encode() + b"\n"
