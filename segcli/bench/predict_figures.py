"""What `segcli bench predict` finds: a row per contestant and score, and the machine they hold for."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from segcli.bench.compare import Comparison
from segcli.bench.conv_peak import ConvPeak
from segcli.bench.timing import Spread, spread


@dataclass(frozen=True)
class Row:
    """One contestant with one score threshold.

    Attributes:
        score: the threshold.
        name: who.
        pictures: per job.
        resolved: what ran, as the contestant says it.
        time: milliseconds per picture of the whole job.
        speedup: stock's time / this one's, of each round; None for stock.
        peak_bytes: the most memory that its process ever held, loading and compiling included; None = unknown.
        gpu_peak_bytes: the most that torch held on the GPU; None without one.
        open_s: seconds from the start of loading to a model that is ready.
        first_s: seconds of the first job, which is not timed; above `time` by what is done once (compiling).
        stages: milliseconds per picture by stage, median over the rounds.
        detections: per picture.
        peak: whose convolution peak `share` refers to.
        share: of the time that the trunk alone would need at that peak, in the whole job's time.
        comparison: with stock's detections; None for stock.
        ok: whether an fp32 contestant's outputs equal stock's; None where nobody asks for that.
    """

    score: float
    name: str
    pictures: int
    resolved: dict[str, Any]
    time: Spread
    speedup: Spread | None
    peak_bytes: int | None
    gpu_peak_bytes: int | None
    open_s: float
    first_s: float
    stages: dict[str, float]
    detections: float
    peak: str
    share: float
    comparison: Comparison | None
    ok: bool | None

    @property
    def pictures_per_s(self) -> float:
        """Of the median."""
        return 1e3 / self.time.median


@dataclass
class Report:
    """What a run found.

    Attributes:
        machine: see `describe_machine`.
        device: as torch names it.
        model: MODEL, as the user named it.
        pictures: how many each job had.
        conv_peak: see there; by type.
        trunk_gflop: 10⁹ operations of backbone, pyramid and RPN head per picture.
        quick: tiny sizes, whose figures say nothing of speed.
        rows: the figures.
        absent: contestants that could not run → why.
    """

    machine: dict[str, Any]
    device: str
    model: str
    pictures: int = 0
    conv_peak: dict[str, ConvPeak] = field(default_factory=dict)
    trunk_gflop: float = 0.0
    quick: bool = False
    rows: list[Row] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)

    @property
    def wrong(self) -> list[Row]:
        """Rows whose outputs had to equal stock's and do not."""
        return [row for row in self.rows if row.ok is False]


def paired_spread(slow: Sequence[float], fast: Sequence[float]) -> Spread:
    """Of slow / fast, round by round, so that what slows a whole round down falls out."""
    return spread([s / max(f, 1e-9) for s, f in zip(slow, fast, strict=True)])


def median_stages(rounds: Sequence[dict[str, float]], pictures: int) -> dict[str, float]:
    """Seconds per job by stage to milliseconds per picture, median over the rounds; the order is kept."""
    names = list(dict.fromkeys(name for stages in rounds for name in stages))
    return {
        name: statistics.median(r.get(name, 0.0) for r in rounds) * 1e3 / pictures for name in names
    }
