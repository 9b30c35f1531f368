"""`scripts/gpu_check.sh` as far as a machine without a GPU can show it; the whole rehearsal is run by hand."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is only for Linux")

REPOSITORY = Path(__file__).resolve().parents[1]
STEPS = [
    "machine",
    "tests",
    "values",
    "limits",
    "predict",
    "paste",
    "bench",
    "launches",
    "training",
]


def gpu_check(
    out: Path, *arguments: str, checkout: Path = REPOSITORY
) -> subprocess.CompletedProcess[str]:
    """One start of the script, with no GPU to be seen."""
    kept = {k: v for k, v in os.environ.items() if k not in ("TRITON_INTERPRET", "PYTHONPATH")}
    return subprocess.run(
        ["bash", str(checkout / "scripts" / "gpu_check.sh"), *arguments],
        env=kept | {"OUT": str(out), "CUDA_VISIBLE_DEVICES": "", "PYTHON": sys.executable},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


def test_wrong_arguments(tmp_path: Path) -> None:
    """An unknown step is wrong usage, and names those that there are."""
    run = gpu_check(tmp_path, "--only", "nothing")
    assert run.returncode == 2
    assert "'machine'" in run.stderr


def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    """It fails in a line and writes no results."""
    run = gpu_check(tmp_path)
    assert run.returncode == 1
    assert run.stderr.splitlines() == [
        "gpu_check: torch finds no CUDA device here; --rehearse needs none"
    ]
    assert list(tmp_path.iterdir()) == []


def test_the_steps_are_listed(tmp_path: Path) -> None:
    """One line each."""
    run = gpu_check(tmp_path, "--list")
    assert run.returncode == 0
    assert [line.split()[0] for line in run.stdout.splitlines()] == STEPS


@pytest.fixture
def without_link(tmp_path: Path) -> Path:
    """A copy of the checkout as a zip leaves it: the link segcli/models is gone."""
    copy = tmp_path / "checkout"
    for folder in ("models", "scripts"):
        shutil.copytree(
            REPOSITORY / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    ignored = shutil.ignore_patterns("__pycache__", "models")
    shutil.copytree(REPOSITORY / "segcli", copy / "segcli", ignore=ignored)
    assert not (copy / "segcli" / "models").exists()
    return copy


def test_a_rehearsal_measures_nothing(tmp_path: Path, without_link: Path) -> None:
    """The machine's step in a checkout without the link: it runs, names what needs CUDA, and holds no figure."""
    out = tmp_path / "out"
    run = gpu_check(out, "--rehearse", "--only", "machine", checkout=without_link)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.splitlines()[-1].split()[:3] == ["machine", "ok", "-"]
    assert f"segcli.models is {out}/packages/segcli/models/" in (out / "machine.log").read_text()
    report = json.loads((out / "rehearsal.json").read_text())
    assert report["rehearsal"] is True
    assert report["device"] == "none: a rehearsal on the CPU"
    assert report["steps"]["machine"]["figures"] == {}
    assert report["steps"]["machine"]["checks"]["copy bandwidth"] == "needs CUDA"
    assert not (out / "gpu.json").exists()


@pytest.mark.slow
def test_values_in_a_checkout_without_the_link(tmp_path: Path, without_link: Path) -> None:
    """The network of this very checkout is imported, its kernels run in the interpreter and are right."""
    run = gpu_check(tmp_path / "out", "--rehearse", "--only", "values", checkout=without_link)
    assert run.returncode == 0, run.stdout + run.stderr
    checks = json.loads((tmp_path / "out" / "rehearsal.json").read_text())["steps"]["values"][
        "checks"
    ]
    assert set(checks.values()) == {"passed"}


def test_a_step_that_dies_fails_and_the_next_one_runs(tmp_path: Path, without_link: Path) -> None:
    """Exit code 1, the reason in the report, its log kept."""
    (without_link / "scripts" / "gpu" / "values.py").write_text("import os\nos._exit(7)\n")
    out = tmp_path / "out"
    run = gpu_check(out, "--rehearse", "--only", "values", "machine", checkout=without_link)
    assert run.returncode == 1
    steps = json.loads((out / "rehearsal.json").read_text())["steps"]
    assert steps["values"]["checks"] == {
        "the step runs to its end": "failed: exit code 7; see values.log"
    }
    assert steps["machine"]["ok"]
