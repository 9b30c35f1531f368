"""`--roi-align` through the whole program."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import cv2
import numpy as np
import pytest

from segcli.cli.main import main


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A folder of one picture and a small model of random weights; `--output` is left to give."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    photos = tmp_path / "photos"
    photos.mkdir()
    picture = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)
    cv2.imwrite(str(photos / "a.png"), picture)
    model = str(tmp_path / "m.safetensors")
    assert main(["models", "init", "mask-rcnn-nano", "--classes", "2", "--output", model]) == 0
    return ["predict", "folder", str(photos), "--model", model, "--device", "cpu", "--score", "0"]


def test_triton_on_a_cpu_is_an_error(
    job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, exit code 2, and nothing runs in its place."""
    capsys.readouterr()
    assert main([*job, "--roi-align", "triton", "--output", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert "--roi-align triton" in said[0]
    assert "needs a CUDA device, found cpu; use --roi-align auto" in said[0]
    assert not (tmp_path / "out" / "predictions.json").exists()


def test_which_one_runs_is_said_and_recorded(
    job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`auto` is the gather on a CPU; torchvision's finds the same objects within the design's tolerances."""
    found = {}
    for backend, runs in (("auto", "gather"), ("gather", "gather"), ("torchvision", "torchvision")):
        out = tmp_path / backend
        assert (
            main([*job, "--roi-align", backend, "--precision", "fp32", "--output", str(out)]) == 0
        )
        assert f"RoIAlign: {runs} (" in capsys.readouterr().err
        settings = tomllib.loads((out / "config.toml").read_text())
        assert settings["resolved"]["roi_align"] == runs
        found[backend] = json.loads((out / "predictions.json").read_text())["annotations"]
    assert found["auto"] == found["gather"]
    assert len(found["auto"]) == len(found["torchvision"]) > 0
    for ours, theirs in zip(found["auto"], found["torchvision"], strict=True):
        assert ours["score"] == pytest.approx(theirs["score"], abs=2e-4)
        assert ours["bbox"] == pytest.approx(theirs["bbox"], abs=1e-2)
