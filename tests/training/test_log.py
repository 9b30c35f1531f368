"""`metrics.jsonl`: one object a line, none of a step that was lost."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from segcli.errors import OutputError
from segcli.training.log import EVERY, TrainingLog
from segcli.training.progress import Progress
from segcli.training.steps import StepFigures


def _figures(step: int) -> StepFigures:
    losses = {"loss_mask": float(step), "loss_classifier": 1.0}
    return StepFigures(step, losses, norm=2.0, lr=0.1, files=("a.png",), pictures=4)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_for_every_so_many_steps(tmp_path: Path) -> None:
    """Means since the line before, at fixed steps, so that a resumed run writes the same ones."""
    progress = Progress()
    with TrainingLog(tmp_path / "m.jsonl", progress, 100) as log:
        for step in range(3, EVERY + 2):
            progress.step = step
            log.step(_figures(step))
        log.flush()
    first, second = _lines(tmp_path / "m.jsonl")
    assert first["step"] == EVERY
    assert first["loss_mask"] == pytest.approx(sum(range(3, EVERY + 1)) / (EVERY - 2))
    assert first["loss"] == pytest.approx(first["loss_mask"] + 1.0)
    assert (first["lr"], first["gradient_norm"]) == (0.1, 2.0)
    assert (second["step"], second["loss_mask"]) == (EVERY + 1, EVERY + 1)


def test_lines_of_lost_steps_are_cut_off(tmp_path: Path) -> None:
    """What a checkpoint counted stays; a file that is shorter than that is left as it is."""
    path = tmp_path / "m.jsonl"
    with TrainingLog(path, Progress(step=1), 9) as log:
        log.write({"kept": 1})
        kept = log.bytes
        log.write({"lost": 1})
    with TrainingLog(path, Progress(step=1), 9, keep=kept) as log:
        log.write({"again": 1})
    assert [list(line)[-1] for line in _lines(path)] == ["kept", "again"]
    size = path.stat().st_size
    with TrainingLog(path, Progress(step=1), 9, keep=10**6):
        assert path.stat().st_size == size


def test_a_run_that_starts_anew_has_no_old_lines(tmp_path: Path) -> None:
    """Killed before its first checkpoint."""
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 1}\n')
    with TrainingLog(path, Progress(), 9):
        pass
    assert path.read_text() == ""


def test_processes_that_write_nothing() -> None:
    """All but the first."""
    with TrainingLog(None, Progress(), 9) as log:
        log.step(_figures(1))
        log.flush()
        assert log.bytes == 0


def test_events_are_said_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the pictures' names."""
    with TrainingLog(tmp_path / "m.jsonl", Progress(step=7), 9) as log:
        log.event("skipped step", "step 7: loss_mask is nan on a.png", ["a.png"])
    (line,) = _lines(tmp_path / "m.jsonl")
    assert (line["step"], line["event"], line["files"]) == (7, "skipped step", ["a.png"])
    assert "warning: step 7: loss_mask is nan on a.png" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
def test_a_full_disk_is_said_in_one_line(tmp_path: Path) -> None:
    """By the very error of the system."""
    path = tmp_path / "m.jsonl"
    with TrainingLog(path, Progress(), 9) as log:
        assert log.stream is not None
        handle = os.open("/dev/full", os.O_WRONLY)
        os.dup2(handle, log.stream.fileno())
        os.close(handle)
        with pytest.raises(OutputError, match=r"m\.jsonl: cannot be written \(No space left"):
            log.write({"x": 1})
        os.dup2(os.open(os.devnull, os.O_WRONLY), log.stream.fileno())  # for what is buffered


class _Closed:
    """A board that is told of nothing, and may fail to close."""

    def __init__(self, error: OSError | None = None) -> None:
        self.error, self.closed = error, False

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Take in nothing."""

    def close(self) -> None:
        """Fail or not."""
        self.closed = True
        if self.error is not None:
            raise self.error


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
def test_a_full_disk_is_what_a_run_ends_with(tmp_path: Path) -> None:
    """The line that could not be written is tried again at the end, which hides nothing; all else is closed."""
    path, board = tmp_path / "m.jsonl", _Closed()
    path.symlink_to("/dev/full")
    log = TrainingLog(None, Progress(), 9, board=board)
    log.path, log.stream = path, path.open("a", encoding="utf-8")
    with pytest.raises(OutputError, match=r"m\.jsonl: cannot be written \(No space left"), log:
        log.write({"x": 1})
    assert log.stream.closed
    assert board.closed


def test_what_fails_to_close_is_said_unless_something_else_is(tmp_path: Path) -> None:
    """In the words of a line that cannot be written."""
    path, full = tmp_path / "m.jsonl", OSError(28, "No space left on device")
    with (
        pytest.raises(
            OutputError, match=r"m\.jsonl: cannot be written \(No space left on device\)"
        ),
        TrainingLog(path, Progress(), 9, board=_Closed(full)),
    ):
        pass
    with pytest.raises(ZeroDivisionError), TrainingLog(path, Progress(), 9, board=_Closed(full)):
        _ = 1 / 0
