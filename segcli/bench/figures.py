"""What a RoIAlign benchmark finds: rows, and the machine they hold for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from segcli.bench.contestants import TYPES, Entry, Part
from segcli.bench.inputs import Inputs
from segcli.bench.timing import Spread, State


@dataclass(frozen=True)
class Row:
    """One contestant in one race.

    Attributes:
        workload: its name.
        part: `forward`, `forward+backward` or `backward`.
        state: `call`, `cold` or `warm`; see `timing`.
        entry: who.
        time: milliseconds.
        speedups: peer → how many times ours its time is, median over the rounds; empty for a peer.
        needed_bytes: see `needed_bytes`.
        share: of the speed of a copy at which the needed bytes were moved; None where the caches help (`warm`) or the
            host's work counts too (`call` on a GPU).
        difference: from the truth; forward absolute, with a backward relative to the largest gradient.
        limit: what is allowed.
        ok: whether all that ran is within its limit; None for a peer, whose difference is only told.
        peak_bytes: most memory that forward and backward took on the GPU beside features; None on a CPU.
    """

    workload: str
    part: Part
    state: State
    entry: Entry
    time: Spread
    speedups: dict[str, float]
    needed_bytes: int
    share: float | None
    difference: float
    limit: float
    ok: bool | None
    peak_bytes: int | None

    @property
    def bytes_per_s(self) -> float:
        """Needed bytes per second of the median."""
        return self.needed_bytes / (self.time.median / 1e3)


@dataclass
class Report:
    """What a run found.

    Attributes:
        machine: see `describe_machine`.
        device: as torch names it.
        backend: ours that was timed.
        copy_bytes_per_s: of a large copy on this device, read and written bytes both counted.
        quick: tiny sizes, whose figures say nothing of speed.
        workloads: facts about each, by name.
        rows: the figures.
        absent: contestants that could not run → why.
    """

    machine: dict[str, Any]
    device: str
    backend: str
    copy_bytes_per_s: float
    quick: bool = False
    workloads: dict[str, dict[str, Any]] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)

    @property
    def wrong(self) -> list[Row]:
        """Rows of ours that differ from the truth by more than is allowed."""
        return [row for row in self.rows if row.ok is False]


def needed_bytes(inputs: Inputs, touched_cells: int, part: Part, dtype: str) -> int:
    """Bytes that no implementation can leave unmoved, in the type of the features.

    Forward: every cell under a sample read once, boxes read, output written. Backward: gradient of the output and
    boxes read, gradient of every map written whole. Both: the sum.
    """
    item = TYPES[dtype].itemsize
    channels = inputs.maps[0].shape[1]
    output = sum(p.gradient.numel() for p in inputs.poolings) * item
    boxes = sum(p.rois.numel() * p.rois.itemsize for p in inputs.poolings)
    forward = touched_cells * channels * item + boxes + output
    backward = output + boxes + sum(m.numel() for m in inputs.maps) * item
    return {"forward": forward, "backward": backward, "forward+backward": forward + backward}[part]
