"""Killed at any moment and gone on with, a run ends as if nothing had happened."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from segcli.config import TrainConfig
from segcli.data.coco import read_coco
from segcli.errors import OutputError, TrainingError
from segcli.models.training.losses import training_losses
from segcli.training.checkpoint import load_last, save_last
from segcli.training.job import Job, run
from segcli.training.material import Material
from segcli.training.session import Session
from segcli.training.setup import prepare
from segcli.training.steps import StepReport

SHORT = TrainConfig(
    model="mask-rcnn-nano", epochs=2, batch_size=1, min_size=64, max_size=96, warmup=1, workers=0,
    device="cpu", ema=0.9,
)  # fmt: skip
Squares = Callable[..., Path]


class Killed(BaseException):
    """Stands for `kill -9`: nothing after it runs."""


def _job(data: Path, folder: Path, config: TrainConfig = SHORT, **extra: Any) -> Job:
    val = extra.pop("val", None)
    settings = {"resume": False, "overwrite": False, **extra}
    truth = None if val is None else read_coco(val)
    return prepare(Material.of([read_coco(data)]), truth, config, folder=folder, **settings)


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Weights, average and optimiser of the last checkpoint, by name."""
    found = load_last(folder)
    assert found is not None
    tensors = {
        f"{kind} {name}": value
        for kind in ("model", "average")
        for name, value in found.tensors.get(kind, {}).items()
    }
    for number, state in found.tensors["optimizer"]["state"].items():
        tensors |= {f"{number} {name}": value for name, value in state.items()}
    return tensors


def _lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _assert_equal(first: Path, second: Path) -> None:
    one, two = _tensors(first), _tensors(second)
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []
    assert (first / "best.safetensors").read_bytes() == (second / "best.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("step", "save_every", "resumed_from"),
    [
        pytest.param(1, 0.0, None, id="before the first checkpoint"),
        pytest.param(3, 0.0, 2, id="within an epoch"),
        pytest.param(5, 1e9, 3, id="long after the last checkpoint"),
    ],
)
def test_killed_in_a_step(
    step: int, save_every: float, resumed_from: int | None, squares: Squares, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Weights, their average, the optimiser and the best weights are the same bits; so is the log."""
    data, config = squares("train", 3), replace(SHORT, save_every=save_every)
    run(_job(data, tmp_path / "whole", config))
    take = Session.take

    def die(self: Session, report: StepReport) -> None:
        if report.step == step:
            self.log.write({"event": "a line of a step that is lost"})
            raise Killed
        take(self, report)

    job = _job(data, tmp_path / "parts", config)
    with monkeypatch.context() as patch:
        patch.setattr(Session, "take", die)
        with pytest.raises(Killed):
            run(job)
    found = load_last(tmp_path / "parts")
    assert (None if found is None else found.progress.step) == resumed_from
    run(_job(data, tmp_path / "parts", config, resume=True))
    _assert_equal(tmp_path / "whole", tmp_path / "parts")
    assert not any("event" in line for line in _lines(tmp_path / "parts"))
    assert [line["step"] for line in _lines(tmp_path / "parts")][-1] == 6


def test_killed_in_an_evaluation(
    squares: Squares, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The epoch before it was saved: no step is done again, the evaluation is."""
    data, val = squares("train", 2), squares("val", 1)
    run(_job(data, tmp_path / "whole", val=val))
    job = _job(data, tmp_path / "parts", val=val)

    def die(*_args: Any, **_more: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("segcli.training.session.measure_shared", die)
        with pytest.raises(Killed):
            run(job)
    found = load_last(tmp_path / "parts")
    assert found is not None
    assert (found.progress.step, found.progress.epoch, found.progress.evaluated) == (2, 1, 0)
    run(_job(data, tmp_path / "parts", val=val, resume=True))
    _assert_equal(tmp_path / "whole", tmp_path / "parts")
    assert [line["epoch"] for line in _lines(tmp_path / "parts") if "val" in line] == [1, 2]


def test_a_damaged_last_checkpoint_changes_nothing(squares: Squares, tmp_path: Path) -> None:
    """The one before it is gone on with, from an earlier step, to the same end."""
    data, config = squares("train", 2), replace(SHORT, save_every=0)
    run(_job(data, tmp_path / "whole", config))
    run(_job(data, tmp_path / "parts", config))
    last = tmp_path / "parts" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-1])
    run(_job(data, tmp_path / "parts", config, resume=True))
    _assert_equal(tmp_path / "whole", tmp_path / "parts")


def _breaking(monkeypatch: pytest.MonkeyPatch, broken: Callable[[int], bool]) -> None:
    """Make the mask loss NaN on the calls that `broken` names, counted from 1."""
    calls = [0]

    def sometimes(*args: Any, **more: Any) -> Any:
        sums = training_losses(*args, **more)
        calls[0] += 1
        if broken(calls[0]):
            sums.sums["loss_mask"] = sums.sums["loss_mask"] * float("nan")
        return sums

    monkeypatch.setattr("segcli.training.parallel.training_losses", sometimes)


def test_a_step_that_breaks_is_skipped(
    squares: Squares, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    """Weights stay finite, the step counts, and the picture is named on stderr and in the log."""
    _breaking(monkeypatch, lambda call: call in (1, 3))
    progress = run(_job(squares("train", 2), tmp_path / "run"))
    assert (progress.step, progress.skipped, progress.skipped_in_row) == (4, 2, 0)
    assert "warning: step 1: loss_mask is nan on " in capsys.readouterr().err
    events = [line for line in _lines(tmp_path / "run") if line.get("event") == "skipped step"]
    assert [(e["step"], len(e["files"])) for e in events] == [(1, 1), (3, 1)]
    assert all(torch.isfinite(v).all() for v in _tensors(tmp_path / "run").values())
    assert all(abs(line.get("loss", 0)) < 1e9 for line in _lines(tmp_path / "run"))


def test_a_skipped_step_changes_no_weight(
    squares: Squares, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor the optimiser's own state."""
    data, one = squares("train"), replace(SHORT, epochs=None, steps=1)
    job = _job(data, tmp_path / "run", one)
    _breaking(monkeypatch, lambda call: call > 0)
    run(job)
    found = load_last(tmp_path / "run")
    assert found is not None
    assert all(torch.equal(found.tensors["model"][k], v) for k, v in job.model.state.items())
    assert all(
        not value.any()
        for s in found.tensors["optimizer"]["state"].values()
        for value in s.values()
    )


def test_several_broken_steps_in_a_row_end_the_run(
    squares: Squares, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the pictures' names; what was saved before is whole, and can be gone on with."""
    _breaking(monkeypatch, lambda call: call > 2)
    data, config = squares("train"), replace(SHORT, max_bad_steps=3)
    with pytest.raises(
        TrainingError, match=r"step 5: loss_mask is nan on \d\.png; broken step 3 in a row"
    ):
        run(_job(data, tmp_path / "run", config))
    found = load_last(tmp_path / "run")
    assert found is not None
    assert all(torch.isfinite(v).all() for v in found.tensors["model"].values())
    monkeypatch.undo()
    assert run(_job(data, tmp_path / "run", config, resume=True)).step == 8


def test_a_full_disk_stops_cleanly(
    squares: Squares, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint before is whole, and the run can be gone on with to the same end."""
    data, config = squares("train", 2), replace(SHORT, save_every=0)
    run(_job(data, tmp_path / "whole", config))
    calls = [0]

    def full(*args: Any, **more: Any) -> None:
        calls[0] += 1
        if calls[0] == 2:
            raise OutputError("last.ckpt: cannot be written (No space left on device)")
        save_last(*args, **more)

    job = _job(data, tmp_path / "parts", config)
    with monkeypatch.context() as patch:
        patch.setattr("segcli.training.session.save_last", full)
        with pytest.raises(OutputError):
            run(job)
    run(_job(data, tmp_path / "parts", config, resume=True))
    _assert_equal(tmp_path / "whole", tmp_path / "parts")


def test_patience_ends_a_run_that_gains_nothing(
    squares: Squares, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a learning rate of almost 0 every evaluation is the same; why the run ends is said."""
    config = replace(SHORT, epochs=9, lr=1e-12, patience=2, batch_size=4, ema=None)
    progress = run(_job(squares("train"), tmp_path / "run", config, val=squares("val", 1)))
    assert (progress.epoch, progress.best_epoch, progress.stale) == (3, 1, 2)
    said = "ended by --patience 2 after epoch 3, step 3/9: no better mask AP than 0.000 of epoch 1"
    assert capsys.readouterr().err.splitlines().count(said) == 1


def test_accumulated_batches_make_one_step(squares: Squares, tmp_path: Path) -> None:
    """5 batches by 2 are 3 steps an epoch, the last one of a single batch."""
    config = replace(SHORT, epochs=1, accumulate=2)
    progress = run(_job(squares("train", 5), tmp_path / "run", config))
    assert (progress.step, progress.epoch, progress.batch) == (3, 1, 0)


def test_several_datasets_share_their_classes(squares: Squares, tmp_path: Path) -> None:
    """Joined by name; each limits the class loss to what it knows."""
    first, second = squares("one", 1, ("cat", "dog")), squares("three", 1, ("dog", "cow"))
    material = Material.of([read_coco(first), read_coco(second)])
    assert material.categories.names == ("cat", "dog", "cow")
    job = prepare(material, None, SHORT, folder=tmp_path / "run", resume=False, overwrite=False)
    assert run(job).step == 4
    assert job.model.spec.classes == 3


def test_pictures_with_more_objects_than_are_looked_at(
    squares: Squares, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each in the log, the first one on stderr: there may be thousands."""
    run(_job(squares("train", 3), tmp_path / "run", replace(SHORT, max_instances=1, epochs=1)))
    events = [line for line in _lines(tmp_path / "run") if line.get("event") == "objects left out"]
    assert sorted(e["files"][0] for e in events) == ["0.png", "1.png", "2.png"]
    assert capsys.readouterr().err.count("1 of its 2 objects at a time (--max-instances)") == 1


def test_a_limit_that_no_picture_reaches_changes_no_bit(squares: Squares, tmp_path: Path) -> None:
    """Two objects of at most two: weights, their average, the optimiser and the log are those without a limit."""
    data, steps = squares("train", 3), []
    for name, most in (("without", None), ("with", 2), ("fewer", 1)):
        run(_job(data, tmp_path / name, replace(SHORT, max_instances=most, accumulate=2, epochs=1)))
        lines = _lines(tmp_path / name)
        steps.append([(v["step"], v["loss"]) for v in lines if "loss" in v])
    _assert_equal(tmp_path / "without", tmp_path / "with")
    assert steps[0] == steps[1] != steps[2]


def test_objects_left_out_come_from_a_worker(squares: Squares, tmp_path: Path) -> None:
    """With their boxes: the same bits as where this process reads the pictures, copy-paste and crops among them."""
    data = squares("train", 3)
    names = ("flip", "crop", "copy-paste", "rotate90")
    config = replace(SHORT, max_instances=1, augment=names, epochs=1, batch_size=2)
    for workers in (0, 1):
        run(_job(data, tmp_path / str(workers), replace(config, workers=workers)))
    _assert_equal(tmp_path / "0", tmp_path / "1")


def test_a_picture_that_breaks_in_the_middle_is_left_out(
    squares: Squares, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Named once, in the log and on stderr, and the epoch goes on."""
    data = squares("train", 3)
    job = _job(data, tmp_path / "run")
    broken = tmp_path / "train" / "1.png"
    broken.write_bytes(broken.read_bytes()[:100])
    assert run(job).step == 6  # batches of no picture are no steps
    assert capsys.readouterr().err.count("left out of training") == 1
    events = [line for line in _lines(tmp_path / "run") if line.get("event")]
    assert [(e["event"], e["files"]) for e in events] == [("unreadable picture", ["1.png"])]
