"""What is wrong in a dataset, gathered while it is read, and how loosely its numbers and ids are taken."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from segcli.annotations import Problem

Id = int | str
T = TypeVar("T")


class Fault(NamedTuple):
    """What is wrong with one thing whose place in the file the finder of the fault does not know.

    Attributes:
        kind: short name for counting.
        found: what was found.
        remedy: what the user can do, or what was done.
    """

    kind: str
    found: str
    remedy: str


@dataclass
class Findings:
    """The problems of one file, in the order in which they were met.

    Attributes:
        file: name of the annotation file; every problem's `where` begins with it.
        rows: what was found so far.
    """

    file: str
    rows: list[Problem] = field(default_factory=list)

    def left_out(self, where: str, fault: Fault) -> None:
        """Something cannot be used."""
        self._add(where, fault, f"left out; {fault.remedy}", left_out=True)

    def kept(self, where: str, fault: Fault) -> None:
        """Something was repaired, or is only worth knowing."""
        self._add(where, fault, fault.remedy, left_out=False)

    def _add(self, where: str, fault: Fault, remedy: str, *, left_out: bool) -> None:
        place = f"{self.file}: {where}" if where else self.file
        self.rows.append(Problem(fault.kind, place, fault.found, remedy, left_out))


class IdTable(Generic[T]):
    """Looks things up by id, and where that fails by the id's text, so that 7 and "7" find each other."""

    def __init__(self, items: Mapping[Id, T]) -> None:
        self._items = items
        self._by_text = {str(key): value for key, value in items.items()}

    def get(self, key: Id) -> T | None:
        """The thing of that id, or None."""
        found = self._items.get(key)
        return self._by_text.get(str(key)) if found is None else found

    def ids(self) -> Iterable[Id]:
        """All ids."""
        return self._items.keys()


def as_id(value: Any) -> Id | None:
    """An id as int or str; None where `value` is neither (a whole float becomes an int)."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int) or (isinstance(value, str) and value):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return None


def as_number(value: Any) -> float | None:
    """A finite number, also one given as text; None where `value` is none."""
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def short(value: Any, limit: int = 60) -> str:
    """A value as it stands in the file, cut so that a message stays one line."""
    # cut before repr: the value may be a list of a million numbers
    text = repr(value[:limit] if isinstance(value, str | list) else value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
