"""A whole run of the training benchmark, tiny, and what it makes of its figures."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from segcli.bench import train, train_report
from segcli.bench.train import TrainReport, TrainSettings, run
from segcli.bench.train_child import Contestant
from segcli.bench.train_inputs import made_up_dataset, read_inputs
from segcli.bench.train_ours import OurTraining
from segcli.bench.train_stock import StockTraining
from segcli.bench.trainers import CONTESTANTS, TrainTask
from segcli.data.coco import read_coco
from segcli.errors import UsageError

NANO = "mask-rcnn-nano"

FAKE = """
import json, os, sys
losses = json.loads(os.environ["FAKE_LOSSES"])
count = 0
for line in sys.stdin:
    message = json.loads(line)
    if message["do"] == "open":
        name = message["contestant"]
        answer = {"seconds": 1.0, "resolved": {"precision": "bf16" if name == "auto" else "fp32"}}
    elif message["do"] == "losses":
        answer = {"losses": {"loss_mask": losses[name], "loss_classifier": losses[name]}}
    else:
        seconds = {"stock": 4.0, "fp32": 2.0, "auto": 1.0}[name] * (1 + count)
        stages = {"data": 0.5, "forward": seconds / 2, "backward": seconds / 4, "optimiser": seconds / 4}
        answer = {"stages": stages, "peak_bytes": 2**30, "step_bytes": 2**29, "gpu_peak_bytes": None}
        count += 1
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> TrainSettings:
    """Settings with which nothing real runs; `segcli.bench.train_child` is replaced by a script."""
    script = tmp_path / "fake_trainer.py"
    script.write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(train, "COMMAND", "fake_trainer")
    monkeypatch.setenv("FAKE_LOSSES", json.dumps({"stock": 1.0, "fp32": 1.0005, "auto": 1.3}))
    return TrainSettings(repeat=3, device="cpu", quick=True)


@pytest.fixture
def task(tmp_path: Path) -> TrainTask:
    """Two made-up pictures for a small network."""
    path = made_up_dataset(tmp_path / "data", 2, 3)
    return TrainTask(str(path), None, NANO, instances=3, min_size=64, max_size=96)


def test_the_first_step_is_not_timed_and_ratios_are_paired(pretend: TrainSettings) -> None:
    """Stages are medians; the time of a step leaves out what makes its batch."""
    found = run(pretend)
    stock, fp32, auto = found.rows
    assert [row.name for row in found.rows] == list(CONTESTANTS)
    assert stock.time.median == pytest.approx(12000.0)
    assert stock.time.rounds == 3
    assert fp32.speedup is not None
    assert auto.speedup is not None
    assert auto.with_data is not None
    assert (fp32.speedup.median, auto.speedup.median) == (2.0, 4.0)
    assert auto.with_data.median == pytest.approx(12.5 / 3.5)
    assert (stock.speedup, stock.ok, fp32.ok, auto.ok) == (None, None, True, None)
    assert found.wrong == []


def test_losses_that_differ_are_said(
    pretend: TrainSettings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An fp32 contestant whose losses are not stock's is wrong; mask targets may differ by a little."""
    monkeypatch.setenv("FAKE_LOSSES", json.dumps({"stock": 1.0, "fp32": 1.01, "auto": 1.0}))
    found = run(pretend)
    assert [row.name for row in found.wrong] == ["fp32"]
    assert (
        "fp32: loss_classifier of the first batch is 1.01, stock has 1\n" in capsys.readouterr().err
    )


def test_report(pretend: TrainSettings, capsys: pytest.CaptureFixture[str]) -> None:
    """Tables name every contestant, and JSON holds every figure."""
    found = run(pretend)
    train_report.show(found)
    out = capsys.readouterr().out
    assert "says nothing of speed" in out or "say nothing of speed" in out
    for text in ("stock", "fp32", "auto (bf16)", "4.00", "512 MiB", "loss_mask", "optimiser"):
        assert text in out
    table = json.loads(train_report.as_json(found))
    assert table["ok"] is True
    assert table["rows"][2]["speedup"]["median"] == 4.0
    assert table["task"]["batch_size"] == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quick": False}, "DATASET is missing"),
        ({"contestants": ("tf",)}, "--contestant tf: expected one of stock, fp32, auto"),
        ({"device": "tpu"}, "--device tpu"),
    ],
)
def test_wrong_settings(changes: dict[str, Any], message: str) -> None:
    """Wrong usage is refused before anything starts."""
    with pytest.raises(UsageError, match=message):
        run(TrainSettings(**{"quick": True, "device": "cpu", **changes}))


def test_too_few_pictures(task: TrainTask) -> None:
    """Pictures with fewer objects than asked for do not count."""
    from dataclasses import replace

    with pytest.raises(UsageError, match="found 0 pictures with 4 objects or more, expected 2"):
        read_inputs(replace(task, instances=4))


def test_made_up_pictures(tmp_path: Path) -> None:
    """As many as asked for, each with its objects, readable as any dataset."""
    found = read_coco(made_up_dataset(tmp_path / "data", 3, 5), None)
    assert [len(p.annotations) for p in found.pictures] == [5, 5, 5]
    assert found.problems == ()


def test_both_have_the_same_losses_and_learn(task: TrainTask) -> None:
    """With the same samples the first batch's losses are equal, and a step changes the weights."""
    torch.manual_seed(0)
    inputs = read_inputs(task)
    stock, ours = StockTraining(task, inputs), OurTraining(task, inputs, "fp32")
    theirs, mine = stock.losses(), ours.losses()
    assert train._differing(mine, theirs) is None
    assert mine == ours.losses()
    for contestant in (stock, ours):
        before = contestant.network.backbone.body.layer4[0].conv1.weight.clone()
        stages = contestant.step()
        assert list(stages) == ["data", "forward", "backward", "optimiser"]
        assert all(seconds > 0 for seconds in stages.values())
        assert not torch.equal(before, contestant.network.backbone.body.layer4[0].conv1.weight)
    assert ours.losses() != mine


def test_the_child_answers(task: TrainTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Open, losses, a step with its memory."""
    import segcli.allocator

    monkeypatch.setattr(segcli.allocator, "keep_large_blocks", lambda: False)
    child = Contestant()
    reply = child.open({"contestant": "fp32", "task": task.to_dict()})
    assert reply["resolved"]["precision"] == "fp32"
    assert len(child.losses({})["losses"]) == 5
    found = child.step({})
    assert found["stages"]["forward"] > 0
    if sys.platform.startswith("linux"):
        assert found["peak_bytes"] > 0


@pytest.mark.slow
def test_real_contestants() -> None:
    """All three in processes of their own: losses equal, every figure there."""
    found: TrainReport = run(
        TrainSettings(model=NANO, min_size=64, max_size=96, threads=1, device="cpu", quick=True)
    )
    assert [row.name for row in found.rows] == list(CONTESTANTS)
    assert found.rows[1].ok is True
    assert all(row.peak_bytes is not None and row.peak_bytes > 2**27 for row in found.rows)
