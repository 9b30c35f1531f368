"""The figures of `segcli bench predict` as tables, or as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from segcli.bench.compare import Comparison
from segcli.bench.predict_figures import Report, Row
from segcli.bench.predictors import STOCK
from segcli.bench.timing import Spread
from segcli.console import table

_JOBS = (
    "who", "s/picture", "p10–p90", "pictures/s", "× stock", "p10–p90", "memory", "of peak", "once",
)  # fmt: skip
_DIFFERENCES = (
    "who", "found", "of stock's", "box px", "score", "mask px", "≥ 0.5 found", "mask IoU", "equal",
)  # fmt: skip


def as_json(report: Report) -> str:
    """One object: machine, peaks, and a row per contestant and score."""
    found = {
        "benchmark": "predict",
        "device": report.device,
        "model": report.model,
        "pictures": report.pictures,
        "quick": report.quick,
        "ok": not report.wrong,
        **report.machine,
        "conv_peak": {name: asdict(peak) for name, peak in report.conv_peak.items()},
        "trunk_gflop_per_picture": report.trunk_gflop,
        "absent": report.absent,
        "rows": [_flat(row) for row in report.rows],
    }
    return json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def show(report: Report) -> None:
    """Two tables per score on stdout: the jobs, and their stages."""
    if report.quick:
        print("A rehearsal (tiny sizes, one round): these figures say nothing of speed.")
    for name, peak in report.conv_peak.items():
        how = ", emulated: the processor has no such instructions" if peak.emulated else ""
        print(
            f"Fastest {name} convolution here: {peak.gflop_per_s:.4g} GFLOP/s ({peak.shape}){how}"
        )
    print(f"The trunk takes {report.trunk_gflop:.4g} GFLOP a picture.")
    for score in dict.fromkeys(row.score for row in report.rows):
        _show_score(report, score)
    for name, reason in report.absent.items():
        print(f"left out: {name}: {reason}")


def _show_score(report: Report, score: float) -> None:
    """Jobs, stages and differences of one score."""
    rows = [row for row in report.rows if row.score == score]
    title = f"{report.model}, {report.pictures} pictures, --score {score:g}: the whole job"
    table(title, _JOBS, [_job(row) for row in rows])
    stages = dict.fromkeys(name for row in rows for name in row.stages)
    table(
        "stages, ms per picture (segcli's threads overlap, so they may add up to more)",
        ("stage", *(row.name for row in rows)),
        [[name, *(_number(row.stages.get(name)) for row in rows)] for name in stages],
    )
    compared = [(row, row.comparison) for row in rows if row.comparison is not None]
    if compared:
        title = "largest differences from stock's detections; how many with a score ≥ 0.5 are found"
        table(title, _DIFFERENCES, [_difference(row, c) for row, c in compared])


def _job(row: Row) -> list[str]:
    t = row.time
    memory = [m for m in (row.peak_bytes, row.gpu_peak_bytes) if m is not None]
    once = row.open_s + max(row.first_s - t.median * row.pictures / 1e3, 0)
    precision = row.resolved["precision"]
    return [
        row.name if row.name == STOCK or precision in row.name else f"{row.name} ({precision})",
        f"{t.median / 1e3:.4g}",
        f"{t.p10 / 1e3:.4g}–{t.p90 / 1e3:.4g}",
        f"{row.pictures_per_s:.3g}",
        f"{row.speedup.median:.2f}" if row.speedup else "–",
        f"{row.speedup.p10:.2f}–{row.speedup.p90:.2f}" if row.speedup else "–",
        " + ".join(f"{m / 2**20:.0f} MiB" for m in memory) or "–",
        f"{row.share:.0%} {row.peak}",
        f"{once:.1f} s",
    ]


def _difference(row: Row, c: Comparison) -> list[str]:
    verdict = {None: "not asked", True: "yes", False: "WRONG"}[row.ok]
    return [
        row.name,
        f"{row.detections:.1f}",
        f"{c.pairs}/{c.expected}",
        f"{c.box_px:.2g}",
        f"{c.score:.2g}",
        str(c.mask_px),
        "–" if c.recall is None else f"{c.recall:.1%}",
        "–" if c.mean_mask_iou is None else f"{c.mean_mask_iou:.4f}",
        verdict,
    ]


def _number(ms: float | None) -> str:
    return "–" if ms is None else f"{ms:.4g}"


def _flat(row: Row) -> dict[str, Any]:
    return {
        "score": row.score,
        "name": row.name,
        "resolved": row.resolved,
        **_spread("ms_per_picture", row.time),
        "rounds": row.time.rounds,
        **(_spread("speedup", row.speedup) if row.speedup else {}),
        "pictures_per_s": row.pictures_per_s,
        "peak_bytes": row.peak_bytes,
        "gpu_peak_bytes": row.gpu_peak_bytes,
        "open_s": row.open_s,
        "first_job_s": row.first_s,
        "stages_ms_per_picture": row.stages,
        "detections_per_picture": row.detections,
        "share_of_conv_peak": row.share,
        "conv_peak": row.peak,
        "against_stock": None if row.comparison is None else _differences(row.comparison),
        "ok": row.ok,
    }


def _spread(name: str, found: Spread) -> dict[str, float]:
    return {f"{name}_{part}": getattr(found, part) for part in ("median", "p10", "p90")}


def _differences(found: Comparison) -> dict[str, Any]:
    facts = asdict(found)
    del facts["mask_iou_sum"]
    return {
        "equal": found.equal,
        **facts,
        "recall": found.recall,
        "mean_mask_iou": found.mean_mask_iou,
    }
