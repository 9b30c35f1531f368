"""`segcli bench roi-align`, as a user starts it; a workload at a time, lest a slow one take the others with it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from gpu.findings import Findings, expect
from segcli.bench.workloads import WORKLOADS

SECONDS = 165.0
REPEAT = 20


def run(findings: Findings, out: Path) -> None:
    """Exit code 0, which includes its own correctness checks; its JSON is kept whole."""
    until = time.monotonic() + findings.pick(SECONDS, 3600.0)
    for name in findings.pick(list(WORKLOADS), list(WORKLOADS)[:1]):
        with findings.check(f"segcli bench roi-align --workload {name}"):
            _workload(findings, out, name, until - time.monotonic())


def _workload(findings: Findings, out: Path, name: str, left: float) -> None:
    command = [
        sys.executable, "-m", "segcli", "bench", "roi-align", "--json", "--workload", name,
        "--device", findings.device,
        *findings.pick(["--repeat", str(REPEAT)], ["--quick", "--repeat", "1", "--roi-align", "gather"]),
    ]  # fmt: skip
    expect(left > 0, "no time was left for it")
    errors = out / f"bench-{name}.stderr.log"
    with errors.open("w") as log:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=log, text=True, timeout=left, check=False
        )
    said = errors.read_text().strip().splitlines()
    expect(bool(done.stdout), f"exit code {done.returncode}: {' '.join(said[-1:])}")
    findings.figure(name, json.loads(done.stdout))
    expect(done.returncode == 0, f"exit code {done.returncode}: {' '.join(said[-1:])}")
