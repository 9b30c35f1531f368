"""`nano-nuclei`: it is there, it is what its card says, and it finds nuclei with no network."""

from __future__ import annotations

import csv
import json
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open

from segcli.cli.main import main
from segcli.config import PredictConfig, TrainConfig
from segcli.data.coco import read_coco
from segcli.device import Compute
from segcli.embedded import EMBEDDED
from segcli.errors import UsageError
from segcli.evaluation.model import evaluate_predictor
from segcli.files import sha256
from segcli.prediction.predictor import Predictor
from segcli.training.start import starting_model
from segcli.zoo import is_path, load_model

NAME = "nano-nuclei"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever opens a connection fails."""

    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def predictor() -> Predictor:
    model = load_model(NAME)
    exact = Compute(torch.device("cpu"), "fp32")
    return Predictor(model.build(), model.categories, exact, config=PredictConfig())


def _cells(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """A made picture of blurred bright ellipses on a dark noisy ground.

    Returns:
        uint8 (256, 256, 3), and int64 (N, 2): x, y of the centres.
    """
    rng = np.random.default_rng(seed)
    canvas = np.full((256, 256), 12.0, np.float32)
    centres = [(x, y) for x in range(32, 256, 48) for y in range(32, 256, 48)]
    places = np.array(centres) + rng.integers(-8, 9, (len(centres), 2))
    for x, y in places.tolist():
        axes = tuple(int(v) for v in rng.integers(8, 14, 2))
        light = float(rng.uniform(70, 150))
        cv2.ellipse(canvas, (x, y), axes, float(rng.uniform(0, 180)), 0, 360, light, -1)
    canvas = np.asarray(cv2.GaussianBlur(canvas, (0, 0), 1.5)) + rng.normal(0, 2, canvas.shape)
    grey = canvas.clip(0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2), places


def test_the_file_is_small_and_in_bf16() -> None:
    """At most 12 MB; every tensor of more than one dimension is bf16, the rest fp32."""
    path = EMBEDDED[NAME].path
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping

    assert path.stat().st_size <= 12e6
    assert {t.dtype for t in tensors.values() if t.ndim > 1} == {torch.bfloat16}
    assert {t.dtype for t in tensors.values() if t.ndim <= 1} == {torch.float32}


def test_it_is_loaded_as_fp32() -> None:
    """The values are those of the file, and the network is built of them."""
    model = load_model(NAME)

    assert {t.dtype for t in model.state.values()} == {torch.float32}
    assert model.source == NAME
    assert model.categories.names == ("nucleus",)
    assert {p.dtype for p in model.build().parameters()} == {torch.float32}


def test_table_file_and_card_agree() -> None:
    """AP, licence and hash are the same in the table, in the file's record and on the card."""
    row, model = EMBEDDED[NAME], load_model(NAME)
    card = row.card.read_text(encoding="utf-8")
    figures = [model.info["val"][kind]["AP"] for kind in ("box", "mask")]

    assert [row.box_ap, row.mask_ap] == [round(ap, 3) for ap in figures]
    assert all(f"{ap:.3f}" in card for ap in figures)
    assert row.licence == model.info["licence"]
    assert row.licence in card
    assert sha256(row.path) in card
    assert row.architecture == model.spec.architecture
    assert "CC0" in card
    assert "Limits" in card


def test_a_name_not_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name wins over a folder of that name; `./` means the folder; a near name is suggested."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / NAME).mkdir()

    assert not is_path(NAME)
    assert load_model(NAME).info["licence"] == "Apache-2.0"
    with pytest.raises(UsageError, match="expected a RUN folder"):
        load_model(f"./{NAME}")
    with pytest.raises(UsageError, match="nano-nuclei"):
        load_model("nano-nucleus")


@pytest.mark.parametrize("seed", range(2))
def test_it_finds_made_cells(seed: int, predictor: Predictor) -> None:
    """At least nine of ten ellipses hold the centre of exactly one mask, and little else is found."""
    picture, places = _cells(seed)
    (found,) = predictor.predict([predictor.prepare(picture)])
    assert found.scores is not None
    found = found[found.scores >= 0.5]
    assert found.masks is not None
    hits = np.array([found.masks.full(i)[places[:, 1], places[:, 0]] for i in range(len(found))])

    assert (hits.sum(axis=0) == 1).mean() >= 0.9
    assert len(found) <= len(places) * 1.15


def test_an_empty_picture_has_no_cells(predictor: Predictor) -> None:
    """Nothing is counted on a dark picture."""
    (found,) = predictor.predict([predictor.prepare(np.full((200, 300, 3), 12, np.uint8))])

    assert found.scores is not None
    assert (found.scores >= 0.5).sum() == 0


def test_counting_in_a_folder(tmp_path: Path) -> None:
    """`segcli predict folder slides --model nano-nuclei --csv` counts cells."""
    (tmp_path / "slides").mkdir()
    for i in range(2):
        Image.fromarray(_cells(i)[0]).save(tmp_path / "slides" / f"{i}.png")
    Image.fromarray(np.full((200, 300, 3), 12, np.uint8)).save(tmp_path / "slides" / "none.png")
    slides, out = str(tmp_path / "slides"), str(tmp_path / "out")
    command = ["predict", "folder", slides, "--model", NAME, "--csv", "--output", out]
    assert main([*command, "--device", "cpu"]) == 0
    with (tmp_path / "out" / "counts.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    counts = {row["file"]: int(row["nucleus"]) for row in rows}

    assert counts["none.png"] == 0
    assert all(20 <= counts[f"{i}.png"] <= 30 for i in range(2))  # 25 were drawn


def test_models_list_and_show(capsys: pytest.CaptureFixture[str]) -> None:
    """The name is listed with its figures, and can be looked at."""
    assert main(["models", "list", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["embedded"]
    assert main(["models", "show", NAME, "--json"]) == 0
    facts: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert main(["models", "list"]) == 0
    assert NAME in capsys.readouterr().out

    assert (row["name"], row["mask_ap"]) == (NAME, EMBEDDED[NAME].mask_ap)
    assert row["megabytes"] < 12
    assert facts["info"]["data"].startswith("2018 Data Science Bowl")


def test_training_starts_from_it(squares: Path) -> None:
    """The same class keeps the heads; another one gets new heads; either way weights are fp32 and all is kept else."""
    data, model = read_coco(squares), load_model(NAME)
    start = starting_model(TrainConfig(model=NAME), data)
    body = "backbone.fpn.inner_blocks.0.0.weight"
    kept = replace(data, categories=replace(data.categories, names=("nucleus",)))

    assert start.categories.names == ("square",)
    assert torch.equal(start.state[body], model.state[body])
    assert {t.dtype for t in start.state.values()} == {torch.float32}
    same = starting_model(TrainConfig(model=NAME), kept)
    assert all(torch.equal(same.state[name], value) for name, value in model.state.items())


@pytest.fixture
def squares(tmp_path: Path) -> Path:
    """A dataset of one picture with one square."""
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "a.png")
    annotation = {
        "id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 100, "bbox": [5, 5, 10, 10],
        "segmentation": [[5, 5, 15, 5, 15, 15, 5, 15]],
    }  # fmt: skip
    table = {
        "images": [{"id": 1, "file_name": "a.png", "height": 64, "width": 64}],
        "annotations": [annotation],
        "categories": [{"id": 1, "name": "square"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(table))
    return tmp_path / "a.json"


def test_ap_on_real_pictures(shared: Callable[[str], Path], predictor: Predictor) -> None:
    """Mask AP above .35 on ten of the pictures that it was validated on."""
    val = read_coco(shared("data/nuclei400") / "val.json")
    ten = replace(val, pictures=val.pictures[::8])
    metrics = evaluate_predictor(predictor, ten, max_dets=200)

    assert len(ten.pictures) == 10
    assert metrics.mask is not None
    assert (metrics.mask["AP"] or 0) > 0.35
