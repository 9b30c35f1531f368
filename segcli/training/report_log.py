"""`metrics.jsonl` read back: series, evaluations and mishaps, whatever a kill or a resume did to the file."""

from __future__ import annotations

import bisect
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

_HEAD = frozenset({"step", "epoch", "train_seconds"})


@dataclass(frozen=True, eq=False)
class Series:
    """One quantity over the run.

    Attributes:
        steps: float64 (N,), rising.
        values: float64 (N,); NaN where the quantity was not finite.
    """

    steps: NDArray[np.float64]
    values: NDArray[np.float64]


@dataclass(frozen=True)
class Evaluation:
    """One validation: fractions 0..1 by name, None where the truth has nothing to measure.

    Attributes:
        step: optimiser steps done.
        epoch: epochs finished.
        box: name (`AP`, `AP50` …) to value.
        mask: likewise; empty where there are no masks.
        per_class: rows as in `metrics.json`; empty where they were not logged.
    """

    step: int
    epoch: int
    box: dict[str, float | None]
    mask: dict[str, float | None]
    per_class: tuple[dict[str, Any], ...] = ()

    @property
    def ap(self) -> float | None:
        """By which the best weights are chosen: mask AP, box AP where there are no masks."""
        return (self.mask or self.box).get("AP")


@dataclass(frozen=True)
class Event:
    """Something that went wrong, or that one should know.

    Attributes:
        step: when.
        name: by which events are counted, e.g. `skipped step`.
        reason: why; may be empty.
        files: pictures it was about.
    """

    step: int
    name: str
    reason: str
    files: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class RunLog:
    """All of a run's log.

    Attributes:
        series: quantities of the training steps by name, in the order of their first line.
        evaluations: in the order of their steps.
        events: in the order of the file.
        damaged: lines that are no JSON objects with a step; a kill leaves at most one.
        step: the last one logged.
        epoch: the last one logged.
        seconds: of training until then.
    """

    series: dict[str, Series] = field(default_factory=dict)
    evaluations: tuple[Evaluation, ...] = ()
    events: tuple[Event, ...] = ()
    damaged: int = 0
    step: int = 0
    epoch: int = 0
    seconds: float = 0.0

    def best(self) -> Evaluation | None:
        """The first of the highest AP."""
        return max(
            (e for e in self.evaluations if e.ap is not None),
            key=lambda e: e.ap or 0.0,
            default=None,
        )

    def broken(self) -> dict[str, int]:
        """How many logged values were not finite, by quantity; none left out."""
        counts = {name: int(np.isnan(s.values).sum()) for name, s in self.series.items()}
        return {name: count for name, count in counts.items() if count}


def read_log(path: Path) -> RunLog:
    """Read a log. A file that is absent or empty is an empty log.

    A resumed run writes the steps after its checkpoint again: what comes later replaces what it repeats.
    """
    rows, damaged = _rows(path)
    train = _latest(r for r in rows if "val" not in r and "event" not in r)
    evaluations = _latest(r for r in rows if isinstance(r.get("val"), dict))
    last = (rows or [{}])[-1]
    return RunLog(
        series=_series(train),
        evaluations=tuple(map(_evaluation, evaluations)),
        events=tuple(_event(r) for r in rows if "event" in r),
        damaged=damaged,
        step=int(last.get("step", 0)),
        epoch=int(_number(last.get("epoch"), 0.0)),
        seconds=_number(last.get("train_seconds"), 0.0),
    )


def _rows(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Lines that hold an object with a step, and how many others there are."""
    if not path.exists():
        return [], 0
    rows, damaged = [], 0
    for line in path.read_bytes().splitlines():
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:  # also bytes that are no UTF-8
            row = None
        step = row.get("step") if isinstance(row, dict) else None
        if isinstance(row, dict) and _is_number(step) and math.isfinite(step):
            rows.append(row)
        else:
            damaged += 1
    return rows, damaged


def _latest(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with rising steps: one that goes back takes away all from its step on."""
    kept: list[dict[str, Any]] = []
    for row in rows:
        if kept and kept[-1]["step"] >= row["step"]:
            del kept[bisect.bisect_left(kept, row["step"], key=itemgetter("step")) :]
        kept.append(row)
    return kept


def _series(rows: Sequence[dict[str, Any]]) -> dict[str, Series]:
    """Every quantity with the rows that have it; what is infinite becomes NaN."""
    columns: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for row in rows:
        for name, value in row.items():
            if name not in _HEAD and _is_number(value):
                steps, values = columns[name]
                steps.append(row["step"])
                values.append(value)
    return {name: _one_series(*column) for name, column in columns.items()}


def _one_series(steps: list[float], values: list[float]) -> Series:
    found = np.array(values, np.float64)
    return Series(np.array(steps, np.float64), np.where(np.isfinite(found), found, np.nan))


def _evaluation(row: dict[str, Any]) -> Evaluation:
    val = row["val"]
    classes = val.get("per_class")
    return Evaluation(
        step=int(row["step"]),
        epoch=int(_number(row.get("epoch"), 0.0)),
        box=_fractions(val.get("box")),
        mask=_fractions(val.get("mask")),
        per_class=tuple(c for c in classes if isinstance(c, dict))
        if isinstance(classes, list)
        else (),
    )


def _fractions(table: object) -> dict[str, float | None]:
    if not isinstance(table, dict):
        return {}
    return {
        str(name): float(value) if _is_number(value) and math.isfinite(value) else None
        for name, value in table.items()
    }


def _event(row: dict[str, Any]) -> Event:
    files = row.get("files")
    return Event(
        step=int(row["step"]),
        name=str(row["event"]),
        reason=str(row.get("reason", "")),
        files=tuple(map(str, files)) if isinstance(files, list) else (),
    )


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Any, otherwise: float) -> float:
    return float(value) if _is_number(value) and math.isfinite(value) else otherwise
