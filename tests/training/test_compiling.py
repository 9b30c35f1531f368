"""`--compile` in training: when it can be had, what is recorded, and two steps with it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from segcli.config import TrainConfig, load_settings
from segcli.data.coco import read_coco
from segcli.errors import UsageError
from segcli.prediction import compiled
from segcli.training.compiling import choose_compile
from segcli.training.job import Job, run
from segcli.training.material import Material
from segcli.training.setup import prepare

QUICK = TrainConfig(
    model="mask-rcnn-nano", steps=2, batch_size=1, min_size=64, max_size=64, warmup=1, workers=0,
    device="cpu", precision="fp32", augment=("flip", "lsj"), freeze="5",
)  # fmt: skip
CPU = torch.device("cpu")


def _prepare(data: Path, folder: Path, config: TrainConfig, *, resume: bool = False) -> Job:
    material = Material.of([read_coco(data)])
    return prepare(material, None, config, folder=folder, resume=resume, overwrite=False)


@pytest.mark.parametrize(
    ("asked", "recorded", "expected"),
    [
        (None, None, False),
        (None, False, False),
        (None, True, True),
        (True, None, True),
        (False, True, False),
    ],
)
def test_a_flag_then_the_runs_own_choice(
    asked: bool | None, recorded: bool | None, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new run is not compiled unless asked to be; a resumed one goes on as it began."""
    monkeypatch.setattr("segcli.training.compiling.why_not", lambda: None)
    saved = None if recorded is None else {"resolved": {"compile": recorded}}
    assert choose_compile(replace(QUICK, compile=asked), saved, CPU) is expected
    assert choose_compile(QUICK, {"resolved": {}}, CPU) is False


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"checkpointing": True}, "found both --compile and --checkpointing; give one of them"),
        (
            {"augment": ("flip", "scale")},
            "--augment flip,scale gives many; give --augment flip,lsj",
        ),
        ({"augment": ()}, "--augment nothing gives many"),
    ],
)
def test_what_it_does_not_go_with(
    change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said in one line, also where the run that is resumed chose it."""
    monkeypatch.setattr("segcli.training.compiling.why_not", lambda: None)
    saved = {"resolved": {"compile": True}}
    for config, table in ((replace(QUICK, compile=True), None), (QUICK, saved)):
        with pytest.raises(UsageError) as error:
            choose_compile(replace(config, **change), table, CPU)
        assert message in str(error.value)
        assert "\n" not in str(error.value)


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU it is an error that says what to do; on a GPU none is needed."""
    monkeypatch.setattr(compiled.shutil, "which", lambda _: None)
    monkeypatch.delenv("CXX", raising=False)
    config = replace(QUICK, compile=True)
    with pytest.raises(UsageError, match=r"--compile: no C\+\+ compiler was found .*--no-compile"):
        choose_compile(config, None, CPU)
    assert choose_compile(config, None, torch.device("cuda", 0))


def test_it_is_recorded_and_kept(
    squares: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resumed with the other choice the run is refused, since it would end with other bits."""
    monkeypatch.setattr("segcli.training.compiling.why_not", lambda: None)
    data, folder = squares("train"), tmp_path / "run"
    assert _prepare(data, folder, replace(QUICK, compile=True)).config.compile is True
    assert load_settings(folder / "config.toml")["compile"] is True
    assert _prepare(data, folder, QUICK, resume=True).config.compile is True
    with pytest.raises(UsageError, match="compile: was True, now False"):
        _prepare(data, folder, replace(QUICK, compile=False), resume=True)
    assert _prepare(data, tmp_path / "plain", QUICK).config.compile is False


@pytest.mark.slow
@pytest.mark.skipif(
    "SEGCLI_COMPILE" not in os.environ, reason="takes minutes; set SEGCLI_COMPILE=1"
)
@pytest.mark.skipif(compiled.why_not() is not None, reason=f"{compiled.why_not()}")
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_two_steps(
    squares: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The losses are those of the plain run, nearly, and what was compiled is kept."""
    monkeypatch.setenv("SEGCLI_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    data, losses = squares("train"), []
    for name, wanted in (("plain", False), ("compiled", True)):
        run(_prepare(data, tmp_path / name, replace(QUICK, compile=wanted)))
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in lines])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert list((tmp_path / "home" / "inductor").rglob("*.so"))
