"""`metrics.jsonl`, one JSON object a line, and the progress bar."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from types import TracebackType
from typing import Any

from segcli.console import progress as progress_bar
from segcli.training.loop import Progress, StepReport

EVERY = 20


class TrainingLog:
    """Collects steps, writes a line every `EVERY` of them, and shows losses and time left.

    Args:
        path: `metrics.jsonl`; appended to.
        progress: the run's own, read for step, epoch and time.
        steps: in all.
    """

    def __init__(self, path: Path, progress: Progress, steps: int) -> None:
        self.progress = progress
        self.stream = path.open("a", encoding="utf-8")
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
        self.flush()
        self.bar.close()
        self.stream.close()

    def step(self, report: StepReport) -> None:
        """Take in one step."""
        for name, value in report.losses.items():
            self.sums[name] += value
        self.sums["loss"] += sum(report.losses.values())
        self.sums["gradient_norm"] += report.gradient_norm
        self.count += 1
        self.pictures += report.pictures
        self.bar.update()
        if self.count == EVERY:
            self.flush(lr=report.lr)

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

    def write(self, values: dict[str, Any]) -> None:
        """Append one line; step, epoch and training time stand first."""
        now = self.progress
        head = {"step": now.step, "epoch": now.epoch, "train_seconds": round(now.seconds, 3)}
        self.stream.write(json.dumps({**head, **values}) + "\n")
        self.stream.flush()
