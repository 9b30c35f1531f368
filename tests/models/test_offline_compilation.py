"""The Triton kernels as machine code for GPUs that are not here: `scripts/compile_kernels.py`, for sm_80 and sm_90.

The golden file lists every kernel of every variant. What must hold is checked with any Triton; the numbers are compared
with the Triton that the file was made with. After a change of a kernel: `python scripts/compile_kernels.py
--update-golden`, and look at the difference.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="Triton is only for Linux")

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "scripts" / "compile_kernels.py"
GOLDEN = json.loads((Path(__file__).parent / "golden" / "kernels.json").read_text())
ARCHITECTURES = ("sm_80", "sm_90")
ROI_LOADS = 5  # picture, x1, y1, x2, y2: one float32 each

Report = Callable[[str], dict[str, Any]]


def kernels(*words: str, architectures: tuple[str, ...] = ARCHITECTURES) -> pytest.MarkDecorator:
    """Parametrises over the kernels whose `variant: kernel` holds all of the words."""
    chosen = [
        pytest.param(architecture, name, id=f"{architecture}-{name.replace(': ', '-')}")
        for architecture in architectures
        for name in GOLDEN[architecture]
        if set(words) <= set(name.replace(":", "").split())
    ]
    assert chosen, words
    return pytest.mark.parametrize(("architecture", "name"), chosen)


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Figures of all kernels of an architecture; compiled once, also where tests run in several processes."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    known: dict[str, dict[str, Any]] = {}

    def read(architecture: str) -> dict[str, Any]:
        if architecture not in known:
            known[architecture] = compile_once(architecture, folder)
        return known[architecture]

    return read


def compile_once(architecture: str, folder: Path) -> dict[str, Any]:
    """Run the script unless another process has; in a process of its own, since a compiler that fails may abort."""
    target = folder / f"{architecture}.json"
    with (folder / f"{architecture}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            run_script(
                "--arch", architecture.removeprefix("sm_"), "--json", str(target), cache=folder
            )
    found: dict[str, Any] = json.loads(target.read_text())
    return found


def run_script(*arguments: str, cache: Path) -> None:
    """The script without the interpreter and with a cache of its own."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(cache / "triton"), "PYTHONPATH": str(REPOSITORY)}
    run = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-5000:]


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_golden_file_lists_every_kernel(architecture: str, report: Report) -> None:
    """RoIAlign's forward and backwards in all types, and the others; what is new or gone asks for --update-golden."""
    names = set(report(architecture)[architecture])
    assert names == set(GOLDEN[architecture])
    found = {name.split()[0] for name in names}
    assert found == {"forward", "backward", "atomic", "preprocess", "nms", "paste"}
    assert {name.split()[1].rstrip(":") for name in names} == {"fp32", "fp16", "bf16"}


@kernels()
def test_nothing_spills(architecture: str, name: str, report: Report) -> None:
    """Registers suffice; shared memory is what every program may have; the code is for the right GPU."""
    row = report(architecture)[architecture][name]
    assert row["target"].rstrip("a") == architecture
    assert row["spills"] == 0
    assert 0 < row["registers"] <= 255
    assert row["shared"] <= 48 * 1024


@kernels("forward")
def test_features_are_read_16_bytes_at_a_time(architecture: str, name: str, report: Report) -> None:
    """All that is narrower are the five numbers of the RoI; at least the four cells under a sample are wide."""
    loads = report(architecture)[architecture][name]["loads"]
    narrow = {width: count for width, count in loads.items() if int(width) < 16}
    assert narrow == {"4": ROI_LOADS}
    assert loads["16"] >= 4


@kernels("forward", "samples2")
def test_no_exact_division_per_sample(architecture: str, name: str, report: Report) -> None:
    """A correctly rounded division takes dozens of instructions: one per axis for the length of a bin, no more."""
    assert report(architecture)[architecture][name]["exact_divisions"] <= 2


@kernels("nms")
def test_overlaps_are_divided_exactly(architecture: str, name: str, report: Report) -> None:
    """As on a CPU, correctly rounded: where the bits are made, and nowhere else."""
    exact = report(architecture)[architecture][name]["exact_divisions"]
    assert (exact > 0) == name.endswith("nms_bits_kernel")


@kernels("backward")
def test_the_deterministic_backward_has_no_atomics(
    architecture: str, name: str, report: Report
) -> None:
    """Neither `atom` nor `red`, in none of its kernels."""
    assert report(architecture)[architecture][name]["atomics"] == 0


@kernels("atomic", architectures=("sm_90",))
def test_the_atomic_backward_adds_vectors(architecture: str, name: str, report: Report) -> None:
    """From sm_90 on there are atomics of several numbers; a kernel that adds uses nothing else."""
    row = report(architecture)[architecture][name]
    assert row["vector_atomics"] == row["atomics"] > 0


@kernels()
def test_numbers_are_those_of_the_golden_file(architecture: str, name: str, report: Report) -> None:
    """Registers, shared memory, loads: a change shows, for good or bad."""
    found = report(architecture)
    if found["triton"] != GOLDEN["triton"]:
        pytest.skip(f"the golden file is of Triton {GOLDEN['triton']}, this is {found['triton']}")
    assert found[architecture][name] == GOLDEN[architecture][name]


def test_figures_are_read_from_ptx() -> None:
    """The patterns find what they are for: widths, vectors, atomics in both spellings, exact divisions."""
    ptx = """.version 8.7
.target sm_90a
ld.global.v4.b32 { %r1, %r2, %r3, %r4 }, [ %rd1 + 0 ];
ld.global.L1::evict_last.L2::cache_hint.v2.b64 { %rd1, %rd2 }, [ %rd3 ], %rd4;
@%p1 ld.global.b16 { %rs1 }, [ %rd1 ];
ld.global.nc.f32 %f1, [%rd1];
ld.shared.v4.b32 { %r1, %r2, %r3, %r4 }, [ %r5 ];
atom.global.gpu.relaxed.add.v4.f32 { %f1, %f2, %f3, %f4 }, [ %rd1 + 0 ], { %f1, %f2, %f3, %f4 };
red.global.gpu.relaxed.add.f32 [ %rd1 ], %f1;
redux.sync.add.s32 %r1, %r2, %r3;
div.rn.f32 %f1, %f2, %f3;
div.full.f32 %f1, %f2, %f3;
"""
    code = f"import json; from compile_kernels import figures; print(json.dumps(figures({ptx!r})))"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": f"{SCRIPT.parent}{os.pathsep}{REPOSITORY}"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(run.stdout) == {
        "target": "sm_90a", "loads": {"16": 2, "4": 1, "2": 1},
        "atomics": 2, "vector_atomics": 1, "exact_divisions": 1,
    }  # fmt: skip


def test_the_golden_file_is_not_overwritten_with_a_part() -> None:
    """--update-golden with a selection is wrong usage."""
    run = subprocess.run(
        [sys.executable, str(SCRIPT), "--update-golden", "--arch", "90"],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 2
    assert "--update-golden writes every kernel" in run.stderr
