"""`scripts/make_nano_nuclei.py`: how the embedded model is packed, measured and described."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from segcli import config as configuration
from segcli.categories import Categories
from segcli.cli.main import main
from segcli.cli.train import train as train_command
from segcli.config import TrainConfig, to_settings
from segcli.errors import ModelError
from segcli.zoo import load_model, new_model, save_model


@pytest.fixture(scope="module")
def script(repository: Path) -> ModuleType:
    path = repository / "scripts" / "make_nano_nuclei.py"
    spec = importlib.util.spec_from_file_location("make_nano_nuclei", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A RUN with random weights of 20 steps."""
    folder = tmp_path / "run"
    folder.mkdir()
    model = new_model("mask-rcnn-nano", Categories.from_names(["nucleus"]), seed=0)
    model.info["step"] = 20
    save_model(folder / "best.safetensors", model)
    settings = to_settings(
        TrainConfig(model="mask-rcnn-nano", steps=20, augment=("flip",), workers=1)
    )
    (folder / "config.toml").write_text(configuration.dump("train", settings, settings))
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two pictures, dark grey and pink, each with a square."""
    folder = tmp_path / "data"
    (folder / "val").mkdir(parents=True)
    images, annotations = [], []
    for i, color in enumerate(((20, 20, 20), (230, 150, 190)), start=1):
        Image.fromarray(np.full((64, 64, 3), color, np.uint8)).save(folder / "val" / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "height": 64, "width": 64})
        annotations.append(
            {
                "id": i, "image_id": i, "category_id": 1, "iscrowd": 0, "area": 100, "bbox": [5, 5, 10, 10],
                "segmentation": [[5, 5, 15, 5, 15, 15, 5, 15]],
            }
        )  # fmt: skip
    table = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "nucleus"}]}  # fmt: skip
    (folder / "val.json").write_text(json.dumps(table))
    return folder


def test_packing_halves_the_file_and_keeps_the_values(script: ModuleType, run: Path) -> None:
    """bf16 keeps eight bits; norms and biases keep all; the machine's own facts are left out."""
    model = load_model(str(run))
    model.info["started_from"] = "/home/me/secret"
    packed = script.packed(model, None)

    for name, value in model.state.items():
        rounded = packed.state[name].float()
        if value.ndim > 1:
            assert packed.state[name].dtype == torch.bfloat16
            torch.testing.assert_close(rounded, value, rtol=2**-8, atol=1e-30)
        else:
            assert torch.equal(rounded, value)
    assert packed.info["step"] == 20
    assert "secret" not in json.dumps(packed.info)


def test_the_recipe_is_read_from_the_run(script: ModuleType, run: Path) -> None:
    """What differs from the defaults and decides the result, as flags."""
    assert script.recipe_of(run) == "--model mask-rcnn-nano --steps 20 --augment flip"


def test_pictures_by_kind(script: ModuleType, data: Path) -> None:
    """Grey and dark is fluorescence; annotations go with their pictures."""
    parts = script.by_kind(data / "val.json", data / "val")

    assert {k: [i["id"] for i in v["images"]] for k, v in parts.items()} == {
        "fluorescence": [1],
        "others": [2],
    }
    assert [a["image_id"] for a in parts["others"]["annotations"]] == [2]


def test_made_from_a_run(
    script: ModuleType, run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packed, measured by the program itself (here in this process), and written with its card."""

    def segcli(*arguments: str) -> None:
        assert main(list(arguments)) == 0

    monkeypatch.setattr(script, "segcli", segcli)
    command: list[Any] = [
        "x",
        "--run",
        run,
        "--data",
        data,
        "--work",
        tmp_path / "work",
        "--output",
        tmp_path / "out",
    ]
    monkeypatch.setattr(sys, "argv", [str(word) for word in command])
    (tmp_path / "out").mkdir()
    assert script.main() == 0
    model = load_model(str(tmp_path / "out" / "nano-nuclei.safetensors"))
    card = (tmp_path / "out" / "nano-nuclei.md").read_text(encoding="utf-8")

    assert model.info["val"]["fluorescence"]["pictures"] == 1
    assert 0 <= model.info["val"]["mask"]["AP"] <= 1
    assert "| mask | 0." in card
    assert "--steps 20 --augment flip" in card
    assert str(tmp_path) not in card
    assert "{" not in card


def test_a_command_that_fails(script: ModuleType, capfd: pytest.CaptureFixture[str]) -> None:
    """The error names the command; the program itself has said why."""
    with pytest.raises(ModelError, match="segcli eval: exit code 2"):
        script.segcli("eval", "absent.json", "--model", "absent.safetensors")


def test_the_recipe_is_understood(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training is called with flags that `segcli train` knows, and goes on where it was stopped."""
    called: list[str] = []
    monkeypatch.setattr(script, "segcli", lambda *arguments: called.extend(arguments))
    script.train(tmp_path / "data", tmp_path / "run")
    given = train_command.make_context("train", called[1:]).params

    assert called[0] == "train"
    assert given["dataset"] == tmp_path / "data" / "train.json"
    assert given["val"] == tmp_path / "data" / "val.json"
    assert (given["output"], given["resume"]) == (tmp_path / "run", True)
    assert (given["model"], given["max_dets"], given["seed"]) == ("mask-rcnn-nano", 200, 0)
