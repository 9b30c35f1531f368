"""What happens around the steps: reports read late, requests to stop, validation and the final report."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from segcli.config import TrainConfig
from segcli.data.coco import read_coco
from segcli.errors import ModelError, PredictionError, Terminated, TrainingError
from segcli.prediction.predictor import Predictor
from segcli.training.checkpoint import load_last
from segcli.training.job import Job, run
from segcli.training.material import Material
from segcli.training.setup import prepare
from segcli.training.steps import StepReader
from segcli.training.world import World

SHORT = TrainConfig(
    model="mask-rcnn-nano", epochs=1, batch_size=1, min_size=64, max_size=96, warmup=1, workers=0,
    device="cpu",
)  # fmt: skip
Squares = Callable[..., Path]


def _job(data: Path, folder: Path, config: TrainConfig = SHORT, **extra: Any) -> Job:
    val = extra.pop("val", None)
    settings = {"resume": False, "overwrite": False, **extra}
    truth = None if val is None else read_coco(val)
    return prepare(Material.of([read_coco(data)]), truth, config, folder=folder, **settings)


@pytest.fixture
def read_as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports are read every 20 steps."""
    begin = StepReader.__init__
    monkeypatch.setattr(
        StepReader, "__init__", lambda self, _, world: begin(self, torch.device("cuda"), world)
    )


@pytest.mark.usefixtures("read_as_on_a_gpu")
def test_an_unreadable_picture_at_an_epochs_end(squares: Squares, tmp_path: Path) -> None:
    """It is no step, so no report comes with it: those before it are read all the same."""
    data = squares("train", 3)
    job = _job(data, tmp_path / "run")
    last = list(job.order())[-1][0].index
    broken = tmp_path / "train" / job.material.pictures[last].file_name
    broken.write_bytes(broken.read_bytes()[:100])
    assert run(job).step == 3  # the last of them is in a second epoch
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines if '"loss"' in line] == [2, 3]


@pytest.mark.usefixtures("read_as_on_a_gpu")
def test_another_process_that_was_asked_to_end(
    squares: Squares, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heeded after its step, not when reports are read next; what was done is saved."""
    flags = iter([False, True])
    monkeypatch.setattr(World, "any", lambda _, flag: next(flags) or flag)
    with pytest.raises(Terminated):
        run(_job(squares("train", 4), tmp_path / "run"))
    found = load_last(tmp_path / "run")
    assert found is not None
    assert found.progress.step == 2


def test_a_validation_that_does_not_fit_can_be_gone_on_with(
    squares: Squares, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No step is lost, and with smaller batches the same run goes on."""
    data, val, predict = squares("train", 2), squares("val", 3), Predictor.predict
    sizes: list[int] = []

    def limited(self: Predictor, pictures: Sequence[Any]) -> Any:
        sizes.append(len(pictures))
        if len(pictures) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate …")
        return predict(self, pictures)

    monkeypatch.setattr(Predictor, "predict", limited)
    large = replace(SHORT, eval_batch_size=3)
    with pytest.raises(TrainingError, match=r"^validation: out of memory .*--eval-batch-size 1"):
        run(_job(data, tmp_path / "run", large, val=val))
    assert sizes == [3]
    small = replace(SHORT, eval_batch_size=1)
    progress = run(_job(data, tmp_path / "run", small, val=val, resume=True))
    assert (progress.step, progress.best_epoch) == (2, 1)
    assert set(sizes[1:]) == {1}


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(PredictionError("no memory"), id="prediction"),
        pytest.param(ModelError("no memory"), id="weights"),
        pytest.param(RuntimeError("no memory\nfor this"), id="torch"),
    ],
)
def test_a_finished_run_does_not_fail_for_its_reports_pictures(
    error: Exception, squares: Squares, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Its weights are saved: the report is written without them, and that is said."""

    def fail(*_args: Any, **_more: Any) -> None:
        raise error

    monkeypatch.setattr("segcli.training.report_pictures.judged_pictures", fail)
    progress = run(_job(squares("train", 1), tmp_path / "run", val=squares("val", 1)))
    assert progress.step == 1
    assert "report.html: has no pictures (no memory)\n" in capsys.readouterr().err
    report = (tmp_path / "run" / "report.html").read_text()
    assert "Best and worst pictures" not in report
    assert "The run is going on" not in report


def test_the_bar_shows_the_latest_mask_ap(
    squares: Squares, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the first validation on."""
    shown: list[str] = []
    monkeypatch.setattr("tqdm.tqdm.set_description", lambda _, text, **_more: shown.append(text))
    progress = run(_job(squares("train", 1), tmp_path / "run", val=squares("val", 1)))
    assert shown == [f"train (mask AP {progress.best_ap:.3f})"]
