"""Contestants of `segcli bench predict` under way: whole jobs in turn, each timed by the one who does it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from segcli.bench.process import Process
from segcli.bench.timing import Prepare, Run, State, race
from segcli.console import progress


@dataclass
class Running:
    """A contestant under way.

    Attributes:
        process: it.
        work: folder for what it writes; only the first job's output is kept.
        open_s: seconds to load.
        replies: to each job, the warm-up first.
    """

    process: Process
    work: Path
    open_s: float
    replies: list[dict[str, Any]] = field(default_factory=list)

    @property
    def first_output(self) -> Path:
        """What the warm-up wrote."""
        return self.work / "job-0"

    def job(self) -> float:
        """Run the whole job into a new folder; its seconds."""
        out = self.work / f"job-{len(self.replies)}"
        reply = self.process.ask("job", out=str(out))
        if self.replies:
            shutil.rmtree(out)
        self.replies.append(reply)
        return float(reply["seconds"])


def take_turns(running: dict[str, Running], rounds: int) -> dict[str, list[float]]:
    """Every round each does the whole job, after one round that is not timed.

    Returns:
        Milliseconds per job by name, one per round.
    """
    with progress((rounds + 1) * len(running), "bench", "jobs") as bar:

        def step(contestant: Running) -> float:
            seconds = contestant.job()
            bar.update()
            return seconds

        steps: dict[str, tuple[Prepare, Run]] = {
            name: (partial(_same, contestant), step) for name, contestant in running.items()
        }
        return race(steps, _ToldClock(), "call", rounds)


class _ToldClock:
    """Takes the time that a contestant tells: what lies between the processes is not the job."""

    states: tuple[State, ...] = ("call",)
    budget_ms = 0.0

    def time(self, prepare: Prepare, run: Run, state: State) -> float:
        """See `Clock`."""
        del state
        return float(run(prepare())) * 1e3


def _same(contestant: Running) -> Running:
    return contestant
