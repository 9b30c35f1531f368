"""`segcli doctor`."""

from __future__ import annotations

import json

import pytest

from segcli import doctor
from segcli.cli.main import main
from segcli.doctor import Finding

GOOD = [Finding("segcli", "1"), Finding("na\x1bme", "value")]
BAD = [*GOOD, Finding("OpenCV", "broken: ImportError: libGL.so.1", ok=False)]


@pytest.mark.parametrize(
    ("findings", "code"), [([], 0), (GOOD, 0), (BAD, 1)], ids=["nothing", "good", "broken"]
)
def test_exit_code_and_forms(
    findings: list[Finding],
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 1 if something is broken; a table with every finding, or the same as JSON."""
    monkeypatch.setattr(doctor, "examine", lambda: findings)

    assert main(["doctor"]) == code
    table = capsys.readouterr().out
    assert main(["doctor", "--json"]) == code
    rows = json.loads(capsys.readouterr().out)

    assert [Finding(**row) for row in rows] == findings
    assert all(f.found in table for f in findings)
    assert table.count("BROKEN") == code
    assert "\x1b" not in table
