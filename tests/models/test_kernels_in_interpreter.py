"""The Triton kernels without a GPU: their tests, run in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("triton", reason="Triton is only for Linux")

REPOSITORY = Path(__file__).resolve().parents[2]
FILES = sorted((Path(__file__).parent / "kernels").glob("test_*.py"))
FEWEST_TESTS = 5


def test_there_are_kernel_tests() -> None:
    """The folder is found, and holds the forward's tests at least."""
    assert "test_forward.py" in [path.name for path in FILES]


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_kernels_in_the_interpreter(path: Path, tmp_path: Path) -> None:
    """All tests of one file pass and none is skipped; one file at a time, so that two cores share the work."""
    report = tmp_path / "report.xml"
    run = subprocess.run(
        [
            sys.executable, "-m", "pytest", str(path), "-q", "--durations=5", "--tb=short",
            "-p", "no:cacheprovider", "-p", "no:xdist", f"--junitxml={report}",
        ],
        cwd=REPOSITORY, env=_environment(), capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip
    assert run.returncode == 0, f"{path.name} in the interpreter:\n{run.stdout}\n{run.stderr}"
    suite = ElementTree.parse(report).getroot().find("testsuite")
    assert suite is not None
    assert suite.get("skipped") == "0", run.stdout
    assert int(suite.get("tests", 0)) >= FEWEST_TESTS, run.stdout


def _environment() -> dict[str, str]:
    """Ours without what pytest tells its own workers; one thread, because numpy does the work."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("PYTEST_")}
    return kept | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
