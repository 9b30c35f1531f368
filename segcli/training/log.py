"""`metrics.jsonl`, one JSON object a line, and the progress bar."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol

from segcli.console import progress as progress_bar
from segcli.console import warn
from segcli.errors import OutputError
from segcli.training.progress import Progress
from segcli.training.steps import StepFigures

EVERY = 20


class Board(Protocol):
    """What else is told of every line: `segcli.training.tensorboard.TensorBoard`."""

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Take in one line."""

    def close(self) -> None:
        """No more lines come."""


class TrainingLog:
    """Collects steps, writes a line every `EVERY` of them, and shows losses and time left.

    Args:
        path: `metrics.jsonl`; None = nothing is written (all processes but the first).
        progress: the run's own, read for step, epoch and time.
        steps: in all.
        keep: bytes of the file that are of this run; what follows tells of steps that were lost, and is cut off.
        board: is told of every line, too.
    """

    def __init__(
        self,
        path: Path | None,
        progress: Progress,
        steps: int,
        *,
        keep: int = 0,
        board: Board | None = None,
    ) -> None:
        self.progress = progress
        self.path = path
        self.board = board
        self.stream: IO[str] | None = None
        if path is not None:
            self.stream = path.open("a", encoding="utf-8")
            self.stream.truncate(min(keep, path.stat().st_size))
        self.bar = progress_bar(steps, "train", "step")
        self.bar.initial = self.bar.n = progress.step  # steps of an earlier start took no time now
        self.sums: dict[str, float] = defaultdict(float)
        self.count = 0
        self.pictures = 0
        self.since = progress.seconds
        self.loss = float("nan")

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close all.

        Raises:
            OutputError: what was written last cannot be kept, and nothing else went wrong.
        """
        self.bar.close()
        failures: list[OSError] = []
        for part in (self.stream, self.board):
            try:
                if part is not None:
                    part.close()
            except OSError as failure:
                failures.append(failure)
        # on a full disk closing fails as the line before it did, and that one's message is on its way
        if failures and error is None:
            raise self._unwritable(failures[0]) from failures[0]

    @property
    def bytes(self) -> int:
        """Length of the file; what is counted is on the disk."""
        if self.path is None or self.stream is None:
            return 0
        os.fsync(self.stream.fileno())
        return self.path.stat().st_size

    def step(self, figures: StepFigures) -> None:
        """Take in one good step."""
        for name, value in figures.losses.items():
            self.sums[name] += value
        self.sums["loss"] += sum(figures.losses.values())
        self.sums["gradient_norm"] += figures.norm
        self.count += 1
        self.pictures += figures.pictures
        self.bar.update()
        if figures.step % EVERY == 0:
            self.flush(lr=figures.lr)

    def flush(self, **extra: Any) -> None:
        """Write the means since the last line."""
        if not self.count:
            return
        means = {name: value / self.count for name, value in self.sums.items()}
        seconds = max(self.progress.seconds - self.since, 1e-9)
        speed = self.pictures / seconds
        self.loss = means["loss"]
        self.write({**means, "pictures_per_s": speed, **extra})
        self.bar.set_postfix_str(f"loss {means['loss']:.3f}, {speed:.1f} pictures/s")
        self.sums.clear()
        self.count = self.pictures = 0
        self.since = self.progress.seconds

    def event(
        self, event: str, reason: str, files: Sequence[str] = (), *, said: bool = True
    ) -> None:
        """Write down what went wrong, or is worth knowing later, and say it unless told not to."""
        if said:
            warn(reason)
        self.write({"event": event, "reason": reason, "files": list(files)})

    def write(self, values: dict[str, Any]) -> None:
        """Append one line; step, epoch and training time stand first.

        Raises:
            OutputError: the file cannot be written (no space left, say).
        """
        now = self.progress
        head = {"step": now.step, "epoch": now.epochs_begun, "train_seconds": round(now.seconds, 3)}
        if self.stream is not None:
            try:
                self.stream.write(json.dumps({**head, **values}) + "\n")
                self.stream.flush()
            except OSError as error:
                raise self._unwritable(error) from error
        if self.board is not None:
            self.board.write(now.step, values)

    def _unwritable(self, error: OSError) -> OutputError:
        reason = f"cannot be written ({error.strerror or error}); make room, then run again with --resume"
        return OutputError(f"{self.path}: {reason}")
