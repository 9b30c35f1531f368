"""`segcli bench roi-align`: forward and backward against torchvision, timed in turn and checked in the same run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from segcli.bench.check import touched_cells
from segcli.bench.contestants import PARTS, Part
from segcli.bench.figures import Report, Row, needed_bytes
from segcli.bench.inputs import make_inputs
from segcli.bench.lineup import Checked, line_up
from segcli.bench.machine import copy_speed, describe_machine
from segcli.bench.peers import pieces_of
from segcli.bench.timing import Clock, CpuClock, CudaClock, State, paired_ratio, race, spread
from segcli.bench.workloads import FULL, QUICK, WORKLOADS, Scale, Workload
from segcli.console import progress, say, warn
from segcli.device import resolve, roi_align_on
from segcli.errors import UsageError

_COPY_BYTES = {"cpu": 1 << 28, "cuda": 1 << 31}
_QUICK_COPY_BYTES = 1 << 22
_QUICK_ROUNDS = 3


@dataclass(frozen=True)
class Settings:
    """What the user asked for.

    Attributes:
        device: as of `--device`.
        backend: as of `--roi-align`.
        workloads: names; none = all.
        repeat: rounds per race; None = what fits into the clock's budget.
        quick: tiny sizes, three rounds where nothing else is asked for: to see that all runs.
        threads: of the CPU; None = torch's own.
    """

    device: str = "auto"
    backend: str = "auto"
    workloads: Sequence[str] = ()
    repeat: int | None = None
    quick: bool = False
    threads: int | None = None


def run(settings: Settings) -> Report:
    """Measure.

    Raises:
        UsageError: the device, backend or workload cannot be had.
    """
    unknown = sorted(set(settings.workloads) - set(WORKLOADS))
    if unknown:
        raise UsageError(f"--workload {unknown[0]}: expected one of {', '.join(WORKLOADS)}")
    device = resolve(settings.device, "fp32").device
    if device.type not in _COPY_BYTES:
        raise UsageError(f"--device {device}: only cpu and cuda are timed; give --device cpu")
    backend = roi_align_on(device, settings.backend)
    with _threads(settings.threads):
        bench = _Bench.start(settings, device, backend)
        where = bench.report.machine.get("gpu", {}).get("name") or bench.report.machine["processor"]
        say(f"RoIAlign by {backend} on {where}, {torch.get_num_threads()} CPU threads")
        names = list(dict.fromkeys(settings.workloads)) or list(WORKLOADS)
        with progress(len(names), "bench", "workload") as bar:
            for name in names:
                bench.measure(WORKLOADS[name], QUICK if settings.quick else FULL)
                bar.update()
    if bench.report.wrong:
        count = len(bench.report.wrong)
        warn(f"{count} rows differ from torchvision's operator by more than is allowed: WRONG")
    return bench.report


@dataclass
class _Bench:
    """A run under way.

    Attributes:
        report: what is found so far.
        device: the one that is timed.
        clock: its clock.
        rounds: see `race`.
    """

    report: Report
    device: torch.device
    clock: Clock
    rounds: int | None

    @classmethod
    def start(cls, settings: Settings, device: torch.device, backend: str) -> _Bench:
        """Look at the machine and time its copy."""
        clock: Clock = CudaClock(device) if device.type == "cuda" else CpuClock()
        size = _QUICK_COPY_BYTES if settings.quick else _COPY_BYTES[device.type]
        speed = copy_speed(device, clock, size)
        report = Report(describe_machine(device), str(device), backend, speed, settings.quick)
        rounds = settings.repeat or (_QUICK_ROUNDS if settings.quick else None)
        return cls(report, device, clock, rounds)

    def measure(self, workload: Workload, scale: Scale) -> None:
        """All races of one workload."""
        inputs = make_inputs(workload, scale)
        cells = touched_cells(inputs)
        self.report.workloads[workload.name] = {
            "summary": workload.summary,
            "sizes": workload.describe(scale),
            "rois_by_level": [
                sum(len(p.rows) for p in pieces_of(inputs) if p.level == i)
                for i in range(len(inputs.strides))
            ],
            "touched_cells": cells,
            "cells": sum(m[:, 0].numel() for m in inputs.maps),
        }
        checked = line_up(self.report, workload.name, inputs, self.device)
        for part in PARTS:
            entered = [c for c in checked if part in c.entry.parts]
            needed = [needed_bytes(inputs, cells, part, c.entry.dtype) for c in entered]
            for state in self.clock.states:
                self.report.rows += self._race(workload.name, part, state, entered, needed)

    def _race(
        self, name: str, part: Part, state: State, entered: list[Checked], needed: list[int]
    ) -> list[Row]:
        steps = {str(i): c.contestant.steps(part) for i, c in enumerate(entered)}
        times = list(race(steps, self.clock, state, self.rounds).values())
        rows = []
        for c, mine, count in zip(entered, times, needed, strict=True):
            speedups = {
                other.entry.peer: paired_ratio(theirs, mine)
                for other, theirs in zip(entered, times, strict=True)
                if c.entry.ours and not other.entry.ours
            }
            time = spread(mine)
            share = count / (time.median / 1e3) / self.report.copy_bytes_per_s
            rows.append(
                Row(
                    name, part, state, c.entry, time, speedups, count,
                    share if state == self.clock.states[0] else None,
                    *c.shown(part), c.ok(part), c.peak_bytes,
                )
            )  # fmt: skip
        return rows


@contextlib.contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """Torch's CPU threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
