"""The figures of `segcli bench train` as tables, or as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from segcli.bench.timing import Spread
from segcli.bench.train import TrainReport, TrainRow
from segcli.bench.trainers import STOCK
from segcli.console import table

_STEPS = (
    "who", "ms/step", "p10–p90", "× stock", "p10–p90", "with data", "step's memory", "process",
    "losses",
)  # fmt: skip


def as_json(report: TrainReport) -> str:
    """One object: machine, job, and a row per contestant."""
    found = {
        "benchmark": "train",
        "quick": report.quick,
        "ok": not report.wrong,
        **report.machine,
        "task": report.task.to_dict(),
        "rows": [_flat(row) for row in report.rows],
    }
    return json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def show(report: TrainReport) -> None:
    """Tables on stdout: the steps, their stages, and the losses of the first batch."""
    if report.quick:
        print("A rehearsal (tiny sizes, one round): these figures say nothing of speed.")
    task, rows = report.task, report.rows
    title = f"{task.model}, {task.batch_size} pictures a step: one training step"
    table(title, _STEPS, [_step(row) for row in rows])
    who = [row.name for row in rows]
    stages = dict.fromkeys(name for row in rows for name in row.stages)
    table(
        "stages, ms per step", ("stage", *who),
        [[name, *(f"{row.stages[name]:.4g}" for row in rows)] for name in stages],
    )  # fmt: skip
    table(
        "losses of the first batch, equal samples", ("loss", *who),
        [[name, *(f"{row.losses[name]:.6g}" for row in rows)] for name in rows[0].losses],
    )  # fmt: skip


def _step(row: TrainRow) -> list[str]:
    name = row.name
    if name not in (STOCK, row.resolved["precision"]):
        name += f" ({row.resolved['precision']})"
    held = row.gpu_peak_bytes if row.gpu_peak_bytes is not None else row.step_bytes
    return [
        name,
        f"{row.time.median:.4g}",
        f"{row.time.p10:.4g}–{row.time.p90:.4g}",
        f"{row.speedup.median:.2f}" if row.speedup else "–",
        f"{row.speedup.p10:.2f}–{row.speedup.p90:.2f}" if row.speedup else "–",
        f"{row.with_data.median:.2f}" if row.with_data else "–",
        _mib(held),
        _mib(row.peak_bytes),
        {None: "not asked", True: "equal", False: "WRONG"}[row.ok] if row.speedup else "–",
    ]


def _mib(count: int | None) -> str:
    return "–" if count is None else f"{count / 2**20:.0f} MiB"


def _flat(row: TrainRow) -> dict[str, Any]:
    facts = asdict(row)
    for name in ("time", "speedup", "with_data"):
        spread: Spread | None = getattr(row, name)
        facts[name] = None if spread is None else asdict(spread)
    return {"ms_per_step": facts.pop("time"), **facts}
