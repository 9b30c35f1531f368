"""The steps of `scripts/gpu_check.sh`, each in a process of its own, so that one that fails leaves the others whole."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# name -> (seconds after which it is stopped, what it does); all together after TOTAL seconds
STEPS = {
    "machine": (30, "device, versions, copy bandwidth, bf16 matrix rate"),
    "tests": (150, "tests/models/kernels on the device"),
    "values": (
        60,
        "forward and backward against torchvision and sums in float64, all levels' choice",
    ),
    "limits": (100, "2³¹ elements, CUDA graph, torch.compile, autocast, no host sync, equal bits"),
    "predict": (
        200,
        "the detector of fixed shapes: equal, no host sync, graphs; stages, latency, rate",
    ),
    "paste": (60, "masks to run lengths: equal to the CPU's, and their time"),
    "bench": (180, "segcli bench roi-align"),
    "launches": (110, "launch parameters around those of launch.py"),
    "training": (130, "nano learns, twice with the same bits; R50-FPN step times"),
}
TOTAL = 570  # less than the steps' limits together; what is left out can be run with --only
_LEAST = 20  # seconds without which a step is not begun
SCHEMA = 1
END = "the step runs to its end"


def main() -> int:
    """Run the steps; exit code 1 if one of them failed."""
    given = _arguments()
    if given.list:
        for name, (_, text) in STEPS.items():
            print(f"{name:10} {text}")
        return 0
    out = given.output.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if given.step:
        return _one(given.step, out, rehearsal=given.rehearse)
    if not given.rehearse and not _has_cuda():
        print("gpu_check: torch finds no CUDA device here; --rehearse needs none", file=sys.stderr)
        return 1
    started, report = time.monotonic(), {}
    for name in given.only or STEPS:
        left = TOTAL - (time.monotonic() - started)
        limit = STEPS[name][0] * 5 if given.rehearse else min(STEPS[name][0], left)
        if limit < _LEAST:
            late = f"not run, no time is left: --only {name}"
            report[name] = {"ok": False, "checks": {END: late}, "figures": {}, "seconds": 0.0}
            continue
        report[name] = _in_own_process(name, out, limit, given.rehearse)
        _write(
            out, report, rehearsal=given.rehearse
        )  # after each, lest a machine that goes away takes all
    _print_table(report)
    return 0 if all(step["ok"] for step in report.values()) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gpu_check", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("build/gpu"), help="folder")
    parser.add_argument(
        "--rehearse", action="store_true", help="tiny, on the CPU; measures nothing"
    )
    parser.add_argument("--only", nargs="+", choices=STEPS, metavar="STEP", help="these steps")
    parser.add_argument("--list", action="store_true", help="name the steps")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    return parser.parse_args()


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _one(name: str, out: Path, *, rehearsal: bool) -> int:
    """Run one step in this process; what it finds is written as it is found."""
    from gpu.findings import Findings

    findings = Findings(out / f"{name}.json", rehearsal=rehearsal)
    with findings.check(END):
        importlib.import_module(f"gpu.{name}").run(findings, out)
    return 0 if findings.ok else 1


def _in_own_process(name: str, out: Path, limit: float, rehearsal: bool) -> dict[str, Any]:
    """What one step found; one that is stopped or dies has failed, and what it had found is kept."""
    print(f"== {name}: {STEPS[name][1]}", flush=True)
    target = out / f"{name}.json"
    target.unlink(missing_ok=True)
    started = time.monotonic()
    end = _run(name, out, limit, rehearsal)
    seconds = None if rehearsal else round(time.monotonic() - started, 1)
    found: dict[str, Any] = {"ok": False, "checks": {}, "figures": {}}
    if target.exists():
        found = json.loads(target.read_text())
    if END not in found["checks"]:
        found["ok"] = False
        found["checks"][END] = f"failed: {end}; see {name}.log"
    for check, result in found["checks"].items():
        if result != "passed":
            print(f"   {check}: {result}", flush=True)
    return {**found, "seconds": seconds}


def _run(name: str, out: Path, limit: float, rehearsal: bool) -> str:
    """How the step's process ended. Its children end with it, so that none holds the GPU."""
    command = [sys.executable, __file__, "--step", name, "--output", str(out)]
    with (out / f"{name}.log").open("w") as log:
        process = subprocess.Popen(
            command + ["--rehearse"] * rehearsal, env=_environment(rehearsal),
            stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            return f"exit code {process.wait(limit)}"
        except subprocess.TimeoutExpired:
            return f"stopped after {limit:.0f} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _environment(rehearsal: bool) -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if name != "TRITON_INTERPRET"}
    if rehearsal:
        return kept | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return kept | {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}  # else cuBLAS is not deterministic


def _write(out: Path, report: dict[str, Any], *, rehearsal: bool) -> None:
    """gpu.json, or rehearsal.json, which says so and holds no figure."""
    if rehearsal:
        head = {"schema": SCHEMA, "rehearsal": True, "device": "none: a rehearsal on the CPU"}
    else:
        import torch

        head = {"schema": SCHEMA, "device": torch.cuda.get_device_name()}
    head |= {"python": platform.python_version(), "command": "bash scripts/gpu_check.sh"}
    path = out / ("rehearsal.json" if rehearsal else "gpu.json")
    path.write_text(json.dumps(head | {"steps": report}, indent=1) + "\n")


def _print_table(report: dict[str, Any]) -> None:
    print(f"\n{'step':10} {'result':8} {'seconds':>8}  checks")
    for name, step in report.items():
        results = list(step["checks"].values())
        counts = {
            word: sum(r.startswith(word) for r in results)
            for word in ("passed", "failed", "needs CUDA")
        }
        said = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
        seconds = "-" if step["seconds"] is None else f"{step['seconds']:.0f}"
        print(f"{name:10} {'ok' if step['ok'] else 'FAILED':8} {seconds:>8}  {said}")


if __name__ == "__main__":
    sys.exit(main())
