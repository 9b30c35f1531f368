"""Processes that read pictures, and what is said where one dies."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segcli.config import TrainConfig
from segcli.data.coco import read_coco
from segcli.errors import PredictionError, TrainingError
from segcli.training import loop
from segcli.training.job import run
from segcli.training.loader import deaths_named
from segcli.training.material import Material
from segcli.training.setup import prepare

DEATH = RuntimeError(
    "DataLoader worker (pid 7) is killed by signal: Bus error. \nIt is possible that …"
)


def test_a_reading_process_that_is_killed_in_a_step_is_named(
    squares: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the system's out-of-memory killer does it: torch raises in the main thread, whatever that does."""
    gradients = loop.compute_gradients

    def kill(*args: Any, **more: Any) -> Any:
        for process in multiprocessing.active_children():
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
        time.sleep(20)  # the signal of the death ends it
        return gradients(*args, **more)

    monkeypatch.setattr(loop, "compute_gradients", kill)
    config = TrainConfig(
        model="mask-rcnn-nano", epochs=1, batch_size=1, min_size=64, max_size=96, workers=1, device="cpu"
    )  # fmt: skip
    job = prepare(
        Material.of([read_coco(squares("train"))]), None, config,
        folder=tmp_path / "run", resume=False, overwrite=False,
    )  # fmt: skip
    with pytest.raises(
        TrainingError,
        match=r"pictures died \(DataLoader worker .*--resume and fewer --workers.*shm-size",
    ):
        run(job)


def _prediction_error(cause: Exception) -> PredictionError:
    error = PredictionError("the model failed on a.png")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("error", [DEATH, _prediction_error(DEATH)])
def test_deaths_are_one_line(error: Exception) -> None:
    """Also where prediction took it for an error of the model."""
    with pytest.raises(TrainingError, match=r"signal: Bus error\. It is") as caught, deaths_named():
        raise error
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback"),
        _prediction_error(RuntimeError("The size of tensor a (3) must match")),
        ValueError("DataLoader worker (pid 7)"),
    ],
)
def test_other_errors_pass(error: Exception) -> None:
    """As they are; an error in a worker that lives is no death."""
    with pytest.raises(type(error)) as caught, deaths_named():
        raise error
    assert caught.value is error
