"""The kernel tests, which the interpreter runs everywhere, on the device."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from gpu.findings import Findings, expect

REPOSITORY = Path(__file__).resolve().parents[2]


def run(findings: Findings, out: Path) -> None:
    """All pass and none is skipped; a rehearsal runs a few."""
    report = out / "tests.xml"
    report.unlink(missing_ok=True)
    command = [
        sys.executable, "-m", "pytest", "tests/models/kernels", "-q", "--tb=short", "--durations=10",
        "-p", "no:cacheprovider", f"--junitxml={report}",
        *findings.pick(_parallel(), ["-k", "test_no_rois or test_padding or test_channels"]),
    ]  # fmt: skip
    code = subprocess.run(command, cwd=REPOSITORY, check=False).returncode
    with findings.check("tests/models/kernels"):
        expect(report.exists(), f"pytest ended with exit code {code} before it ran anything")
        suite = ElementTree.parse(report).getroot().find("testsuite")
        counts = (
            {}
            if suite is None
            else {k: int(suite.get(k, 0)) for k in ("tests", "failures", "errors", "skipped")}
        )
        findings.figure("tests", counts)
        expect(code == 0, f"exit code {code}: {counts}")
        expect(counts["skipped"] == 0 and counts["tests"] > 0, f"not all ran: {counts}")


def _parallel() -> list[str]:
    """Most of the time goes into compiling, which several processes share if pytest-xdist is there."""
    return ["-n", "8"] if importlib.util.find_spec("xdist") else []
