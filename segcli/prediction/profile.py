"""Where the time of a job goes: seconds by stage, the queues between the stages, and the table of `--profile`."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from segcli.console import table

# in the order of the table; the model's own stages stand below it
DECODE, PREPARE, MODEL, DRAW = "decode", "prepare", "model", "draw"
ENCODE, WRITE = "encode", "write"
STAGES = (DECODE, PREPARE, MODEL, DRAW, ENCODE, WRITE)
# what the model's thread spends besides: where these are long, the stage that is waited for holds the job
NO_PICTURES, NO_ROOM = "model waits for pictures", "model waits for the writer"
WAITS = (NO_PICTURES, NO_ROOM)
_COLUMNS = ("stage", "calls", "wall s", "CPU s", "share", "ms each", "queue", "longest")


@dataclass(frozen=True)
class StageTime:
    """The sums of one stage.

    Attributes:
        calls: how often it was run.
        wall: seconds within it, summed over the threads that run it.
        cpu: CPU seconds of these threads in it; those of torch's own threads are not among them.
        taken: how often it took from the queue in front of it.
        waiting: items found there, summed over these moments.
        longest: the most items found there.
    """

    calls: int = 0
    wall: float = 0.0
    cpu: float = 0.0
    taken: int = 0
    waiting: int = 0
    longest: int = 0


class StageTimes:
    """Adds up the seconds of stages; any thread may report.

    Times are the host's: work that a GPU does later counts in the stage that waits for it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums: dict[str, StageTime] = {}

    def stage(self, name: str, calls: int = 1) -> AbstractContextManager[object]:
        """Measure the block and add it to the stage `name`, also where it ends with an error."""
        return _Stopwatch(self, name, calls)

    def queue(self, name: str, waiting: int) -> None:
        """Note that `waiting` items stood in front of the stage `name` when it came for the next one."""
        with self._lock:
            found = self._sums.get(name, StageTime())
            self._sums[name] = replace(
                found,
                taken=found.taken + 1,
                waiting=found.waiting + waiting,
                longest=max(found.longest, waiting),
            )

    def add(self, name: str, *, calls: int, wall: float, cpu: float) -> None:
        """Add seconds that were measured elsewhere."""
        with self._lock:
            found = self._sums.get(name, StageTime())
            self._sums[name] = replace(
                found, calls=found.calls + calls, wall=found.wall + wall, cpu=found.cpu + cpu
            )

    def sums(self) -> dict[str, StageTime]:
        """What was added so far, by stage, in the order of first mention."""
        with self._lock:
            return dict(self._sums)


class _Stopwatch:
    """One run of one stage."""

    __slots__ = ("_calls", "_cpu", "_name", "_times", "_wall")

    def __init__(self, times: StageTimes, name: str, calls: int) -> None:
        self._times, self._name, self._calls = times, name, calls

    def __enter__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.thread_time()

    def __exit__(self, *_: object) -> None:
        wall, cpu = time.perf_counter() - self._wall, time.thread_time() - self._cpu
        self._times.add(self._name, calls=self._calls, wall=wall, cpu=cpu)


class _NoTimes(StageTimes):
    """Measures nothing."""

    _block = nullcontext()

    def stage(self, name: str, calls: int = 1) -> AbstractContextManager[object]:  # noqa: ARG002
        return self._block

    def queue(self, name: str, waiting: int) -> None:
        pass

    def add(self, name: str, *, calls: int, wall: float, cpu: float) -> None:
        pass


NO_TIMES: StageTimes = _NoTimes()


@runtime_checkable
class HasStages(Protocol):
    """A predictor that measures stages of its own: it has `stages`, which is NO_TIMES while nobody asks.

    `with self.stages.stage("masks"): …` is all that it has to do; a profile puts a StageTimes there.
    """

    stages: StageTimes


@dataclass(frozen=True)
class Totals:
    """A whole run.

    Attributes:
        pictures: that it was over.
        wall: seconds from its start to its end.
        cpu: CPU seconds of the process in that time, torch's own threads and all.
        cores: that the process may use.
    """

    pictures: int
    wall: float
    cpu: float
    cores: int

    def line(self) -> str:
        """All that decides whether the processor holds the job."""
        least = self.cpu / self.cores
        return (
            f"wall {self.wall:.2f} s, CPU seconds of all stages {self.cpu:.2f} s, "
            f"÷ {self.cores} cores {least:.2f} s (wall is {self.wall / max(least, 1e-9):.2f} × that)"
        )


@contextmanager
def profiled(
    predictor: object, pictures: int | None, unit: str = "pictures"
) -> Iterator[StageTimes]:
    """Measure the block; print the table on stderr when it ends without an error.

    Args:
        predictor: whose own stages are shown below the model's row, where it has some (`HasStages`).
        pictures: that the block is over; None = as many as were encoded.
        unit: what they are.
    """
    times, inner = StageTimes(), StageTimes()
    wall, cpu = time.perf_counter(), time.process_time()
    with _measured(predictor, inner):
        yield times
    if pictures is None:
        pictures = times.sums().get(ENCODE, StageTime()).calls
    totals = Totals(
        pictures, time.perf_counter() - wall, time.process_time() - cpu, available_cores()
    )
    table(
        f"Profile of {pictures} {unit}",
        _COLUMNS,
        profile_rows(times.sums(), inner.sums(), totals),
        stderr=True,
    )
    print(totals.line(), file=sys.stderr, flush=True)


@contextmanager
def _measured(predictor: object, inner: StageTimes) -> Iterator[None]:
    """Have the predictor report to `inner` during the block, if it can."""
    if not isinstance(predictor, HasStages):
        yield
        return
    before, predictor.stages = predictor.stages, inner
    try:
        yield
    finally:
        predictor.stages = before


def profile_rows(
    stages: Mapping[str, StageTime], inner: Mapping[str, StageTime], totals: Totals
) -> list[list[str]]:
    """The table: a row per stage, the model's own stages indented, and what no stage accounts for.

    `share` is of the job's wall time; two threads in a stage make up to 200 %. `queue` is the mean number of items in
    front of the stage when it came for the next one, `longest` the largest; 0 means that it had to wait.
    """
    rows = []
    for name in (*STAGES, *WAITS):
        if name in stages:
            rows.append(_row(name, stages[name], totals))
        if name == MODEL:
            rows += [_row(f"  {part}", time, totals) for part, time in inner.items()]
    # the waits run in the model's thread, between its calls
    known = sum(time.cpu for time in stages.values())
    rest = max(totals.cpu - known, 0.0)
    return [*rows, ["other threads (torch's)", "–", "–", f"{rest:.2f}", "–", "–", "–", "–"]]


def _row(name: str, time: StageTime, totals: Totals) -> list[str]:
    depth = (f"{time.waiting / time.taken:.1f}", str(time.longest)) if time.taken else ("–", "–")
    return [
        name,
        str(time.calls),
        f"{time.wall:.2f}",
        f"{time.cpu:.2f}",
        f"{time.wall / max(totals.wall, 1e-9):.0%}",
        f"{1000 * time.wall / max(totals.pictures, 1):.2f}",
        *depth,
    ]


def available_cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
