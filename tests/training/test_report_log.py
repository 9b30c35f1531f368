"""`metrics.jsonl` read back, whatever state it is in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segcli.training.report_log import read_log


def _write(path: Path, *rows: dict[str, Any], tail: str = "") -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + tail)
    return path


@pytest.mark.parametrize("content", [None, "", "\n\n"], ids=["absent", "empty", "blank lines"])
def test_no_log(content: str | None, tmp_path: Path) -> None:
    """A log that is absent or empty has nothing, and nothing is damaged."""
    path = tmp_path / "metrics.jsonl"
    if content is not None:
        path.write_text(content)
    log = read_log(path)

    assert (log.series, log.evaluations, log.events, log.damaged, log.step) == ({}, (), (), 0, 0)
    assert log.best() is None


def test_series_evaluations_and_events_are_told_apart(tmp_path: Path) -> None:
    """Numbers of training lines by name; `val` lines; `event` lines; the last line's step, epoch and time."""
    log = read_log(
        _write(
            tmp_path / "m.jsonl",
            {"step": 20, "epoch": 0, "train_seconds": 1.5, "loss": 2.0, "note": "text", "flag": True},
            {"step": 30, "event": "skipped step", "reason": "loss is nan", "files": ["a.jpg"]},
            {"step": 40, "epoch": 1, "train_seconds": 3.5, "loss": 1.0, "lr": 0.1},
            {"step": 40, "epoch": 2, "train_seconds": 4.0, "val": {"box": {"AP": 0.2, "APl": None}, "mask": None}},
        )
    )  # fmt: skip

    assert list(log.series) == ["loss", "lr"]
    assert log.series["loss"].steps.tolist() == [20, 40]
    assert log.series["lr"].values.tolist() == [0.1]
    assert (log.step, log.epoch, log.seconds) == (40, 2, 4.0)
    (evaluation,) = log.evaluations
    assert evaluation.box == {"AP": 0.2, "APl": None}
    assert evaluation.mask == {}
    assert evaluation.ap == 0.2  # of boxes, where there are no masks
    (event,) = log.events
    assert (event.name, event.reason, event.files) == ("skipped step", "loss is nan", ("a.jpg",))


def test_damaged_lines_are_counted_and_left_out(tmp_path: Path) -> None:
    """Half a line of a kill, a line that is no object, one without a step, and bytes that are no text."""
    path = _write(
        tmp_path / "m.jsonl", {"step": 1, "loss": 1.0}, {"loss": 3.0}, {"step": "x", "loss": 3.0},
        tail='[1, 2]\n{"step": 2, "lo',
    )  # fmt: skip
    path.write_bytes(path.read_bytes() + b"\n\xff\xfe\n")
    log = read_log(path)

    assert log.damaged == 5
    assert log.series["loss"].values.tolist() == [1.0]


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    """NaN and infinity are kept as gaps and counted."""
    rows = [
        {"step": i, "loss": v, "lr": 0.1}
        for i, v in enumerate((1.0, float("nan"), float("inf"), 2.0))
    ]
    log = read_log(_write(tmp_path / "m.jsonl", *rows))

    assert np.isnan(log.series["loss"].values).tolist() == [False, True, True, False]
    assert log.broken() == {"loss": 2}


def test_steps_written_twice_count_once(tmp_path: Path) -> None:
    """A run resumed from step 20 repeats 30 and 40 with other values, and evaluates anew: the later lines count."""
    log = read_log(
        _write(
            tmp_path / "m.jsonl",
            *({"step": s, "loss": 1.0} for s in (10, 20, 30, 40)),
            {"step": 40, "val": {"mask": {"AP": 0.9}}},
            *({"step": s, "loss": 2.0} for s in (25, 35, 45)),
            {"step": 40, "val": {"mask": {"AP": 0.1}}},
        )
    )

    assert log.series["loss"].steps.tolist() == [10, 20, 25, 35, 45]
    assert log.series["loss"].values.tolist() == [1, 1, 2, 2, 2]
    assert [e.ap for e in log.evaluations] == [0.1]


def test_best_is_the_first_of_the_highest(tmp_path: Path) -> None:
    """By mask AP; one that could not be measured is never the best."""
    rows = [
        {"step": i, "val": {"box": {"AP": 0.9 - i / 10}, "mask": {"AP": ap}}}
        for i, ap in enumerate((None, 0.2, 0.5, 0.5, 0.1))
    ]
    best = read_log(_write(tmp_path / "m.jsonl", *rows)).best()

    assert best is not None
    assert best.step == 2
