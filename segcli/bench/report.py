"""A benchmark's figures as tables, or as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

from segcli.bench.contestants import DETERMINISTIC, MODULE, OPERATOR, Part
from segcli.bench.figures import Report, Row
from segcli.console import table

_SHORT: dict[Part, str] = {"forward": "fwd", "forward+backward": "fwd+bwd", "backward": "bwd"}
_TIMES = {OPERATOR: "× op", MODULE: "× module", DETERMINISTIC: "× det."}


def as_json(report: Report) -> str:
    """One object: machine, workloads, and a row per contestant and race. A number that is not finite is null."""
    found = {
        "benchmark": "roi-align",
        "device": report.device,
        "backend": report.backend,
        "quick": report.quick,
        "copy_bytes_per_s": report.copy_bytes_per_s,
        "ok": not report.wrong,
        **report.machine,
        "absent": report.absent,
        "workloads": report.workloads,
        "rows": [_flat(row) for row in report.rows],
    }
    return json.dumps(_finite(found), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def show(report: Report) -> None:
    """A table per workload, on stdout."""
    if report.quick or report.machine.get("interpreted"):
        print(
            "A rehearsal (tiny sizes, or Triton's interpreter): these figures say nothing of speed."
        )
    print(f"A copy moves {report.copy_bytes_per_s / 1e9:.4g} GB/s here (read + written).")
    for name, facts in report.workloads.items():
        rows = [row for row in report.rows if row.workload == name]
        peers = [p for p in _TIMES if any(p in row.speedups for row in rows)]
        states = len({row.state for row in rows}) > 1
        head = ["pass", *(["cache"] if states else []), "who", "ms (p10–p90)"]
        head += [*(_TIMES[p] for p in peers), "GB/s", "of copy", "off by"]
        table(
            f"{name}: {facts['summary']}, {facts['sizes']}",
            head,
            [_cells(row, peers, states) for row in rows],
        )
    for who, reason in report.absent.items():
        print(f"left out: {who}: {reason}")


def _cells(row: Row, peers: list[str], states: bool) -> list[str]:
    t, e = row.time, row.entry
    return [
        _SHORT[row.part],
        *([row.state] if states else []),
        f"{e.name} {e.dtype} {e.layout}",
        f"{t.median:.4g} ({t.p10:.4g}–{t.p90:.4g})",
        *(f"{row.speedups[p]:.1f}" if p in row.speedups else "–" for p in peers),
        f"{row.bytes_per_s / 1e9:.4g}",
        "–" if row.share is None else f"{row.share:.0%}",
        f"{row.difference:.0e}" + (" WRONG" if row.ok is False else ""),
    ]


def _flat(row: Row) -> dict[str, Any]:
    time = {f"{name}_ms": getattr(row.time, name) for name in ("median", "p10", "p90")}
    who = {**asdict(row.entry), "peer": row.entry.peer or None}
    del who["parts"]
    return {
        "workload": row.workload,
        "pass": row.part,
        "state": row.state,
        **who,
        **time,
        "rounds": row.time.rounds,
        "speedups": row.speedups,
        "needed_bytes": row.needed_bytes,
        "bytes_per_s": row.bytes_per_s,
        "share_of_copy": row.share,
        "difference": row.difference,
        "difference_limit": row.limit,
        "ok": row.ok,
        "peak_bytes": row.peak_bytes,
    }


def _finite(value: Any) -> Any:
    """The same with null for NaN and infinities, which JSON has not."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
