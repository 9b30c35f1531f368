"""A whole run on tiny sizes: the report, its JSON and its tables."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from segcli.bench import lineup, report, roi_align
from segcli.bench.check import Difference
from segcli.bench.contestants import Entry
from segcli.bench.figures import Report
from segcli.bench.lineup import Checked
from segcli.bench.roi_align import Settings, run
from segcli.errors import UsageError

TINY = Settings(device="cpu", backend="torchvision", workloads=("mask",), repeat=2, quick=True)


@pytest.fixture(scope="module")
def found() -> Report:
    """A run with torchvision's operator as ours, so that it holds whatever our backends do."""
    return run(TINY)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (replace(TINY, workloads=("boxes",)), "--workload boxes: expected one of box-one-level, "),
        (replace(TINY, device="tpu"), "--device tpu: expected auto, cpu"),
        (replace(TINY, backend="cuda"), "--roi-align cuda: RoIAlign backend 'cuda': expected"),
    ],
)
def test_wrong_wishes(settings: Settings, message: str) -> None:
    """An unknown workload, device or backend is named, with what is expected."""
    with pytest.raises(UsageError, match=f"^{message}"):
        run(settings)


def test_rows(found: Report) -> None:
    """Each contestant has a row per pass; ours has ratios to each peer, and a verdict; a peer has neither."""
    ours = [row for row in found.rows if row.entry.ours]
    theirs = [row for row in found.rows if not row.entry.ours]

    assert {row.part for row in found.rows} == {"forward", "forward+backward", "backward"}
    assert (len(ours), len(theirs)) == (9, 6)
    assert all(row.speedups.keys() == {"operator", "module"} for row in ours)
    assert all(row.speedups == {} for row in theirs)
    assert {row.ok for row in ours} == {True}
    assert {row.ok for row in theirs} == {None}
    assert all(row.time.rounds == 2 and row.time.median > 0 for row in found.rows)
    assert found.wrong == []


def test_threads_are_put_back() -> None:
    """--threads holds for the run, and is what the report says."""
    before = torch.get_num_threads()
    facts = run(replace(TINY, threads=before + 1)).machine

    assert facts["threads"] == before + 1
    assert torch.get_num_threads() == before


def test_json(found: Report) -> None:
    """One object with machine, workloads and flat rows."""
    read = json.loads(report.as_json(found))

    assert (read["ok"], read["quick"]) == (True, True)
    assert read["versions"]["torch"] == torch.__version__.split("+")[0]
    assert read["copy_bytes_per_s"] > 0
    assert read["workloads"]["mask"]["rois_by_level"] == [2, 0, 0, 0]
    assert len(read["rows"]) == len(found.rows)
    row = read["rows"][0]
    assert row["bytes_per_s"] == pytest.approx(row["needed_bytes"] / row["median_ms"] * 1e3)
    assert row["share_of_copy"] == pytest.approx(row["bytes_per_s"] / read["copy_bytes_per_s"])
    assert {"workload", "pass", "state", "dtype", "layout", "p10_ms", "p90_ms", "rounds"} <= set(
        row
    )


def test_what_is_off_is_marked(found: Report, capsys: pytest.CaptureFixture[str]) -> None:
    """A row over its limit is WRONG in the table; NaN is null in the JSON."""
    spoilt = replace(found.rows[0], ok=False, difference=float("nan"))
    bad = replace(found, rows=[spoilt, *found.rows[1:]], absent={"mask: x": "no compiler"})
    report.show(bad)
    text = capsys.readouterr().out
    read = json.loads(report.as_json(bad))

    assert bad.wrong == [spoilt]
    assert text.startswith("A rehearsal")
    assert text.count("WRONG") == 1
    assert "left out: mask: x: no compiler" in text
    assert read["ok"] is False
    assert read["rows"][0]["difference"] is None


@pytest.mark.parametrize(
    ("forward", "backward", "verdicts"),
    [
        (0.5, 0.5, (True, True, True)),
        (2.0, 0.5, (False, False, True)),
        (0.5, 2.0, (True, False, False)),
        (float("nan"), float("nan"), (False, False, False)),
    ],
)
def test_verdicts(forward: float, backward: float, verdicts: tuple[bool, ...]) -> None:
    """A pass is right if all that it runs is; the whole is judged by both halves."""
    who: Any = type("Contestant", (), {"entry": Entry("x", True, "fp32", "NHWC")})()
    checked = Checked(who, Difference(forward, backward, 1.0, 1.0), None)

    found = tuple(checked.ok(part) for part in ("forward", "forward+backward", "backward"))
    assert found == verdicts


def test_a_peer_that_cannot_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A peer out of memory is left out, and said; the rest is timed."""
    true = lineup.enter

    def enter(entry: Entry, *rest: Any) -> Any:
        if entry.peer == "module":
            raise torch.OutOfMemoryError("out of memory\nat line 3")
        return true(entry, *rest)

    monkeypatch.setattr(lineup, "enter", enter)
    found = run(TINY)

    assert found.absent == {"mask: torchvision module": "out of memory"}
    assert "module" not in {row.entry.peer for row in found.rows}
    assert "mask: torchvision module cannot run" in capsys.readouterr().err


def test_ours_that_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own failure is never left out."""

    def enter(*_: Any) -> Any:
        raise RuntimeError("kernel")

    monkeypatch.setattr(lineup, "enter", enter)
    with pytest.raises(RuntimeError, match="kernel"):
        run(TINY)


def test_no_gpu_names_no_gpu(found: Report) -> None:
    """On a CPU there is no GPU in the facts, and nothing says which machine it was."""
    import platform

    assert roi_align.CpuClock.states == ("call",)
    assert "gpu" not in found.machine
    assert platform.node() not in json.dumps(found.machine)
