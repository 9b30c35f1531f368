"""The predictor: settings, classes, frames."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from segcli import zoo
from segcli.categories import Categories
from segcli.config import PredictConfig
from segcli.device import resolve
from segcli.errors import UsageError
from segcli.prediction.loading import predictor_for
from segcli.prediction.predictor import Predictor

CLASSES = Categories.from_names(["nut", "bolt", "gear"])


@pytest.fixture(scope="module")
def model() -> zoo.LoadedModel:
    """A nano with random weights whose scores spread over classes."""
    made = zoo.new_model("mask-rcnn-nano", CLASSES, seed=0)
    made.state["roi_heads.box_predictor.cls_score.weight"] *= 30
    return made


def _image(height: int = 90, width: int = 140) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _predictor(model: zoo.LoadedModel, **settings: object) -> Predictor:
    return predictor_for(model, PredictConfig(**settings))  # type: ignore[arg-type]


def test_no_pictures_give_nothing(model: zoo.LoadedModel) -> None:
    """An empty batch is not an error."""
    assert _predictor(model).predict([]) == []


def test_objects_lie_in_the_original_picture(model: zoo.LoadedModel) -> None:
    """Boxes in its pixels, masks of its size, scores falling and above the limit."""
    predictor = _predictor(model, score=0.2, max_detections=15)
    found = predictor.predict([predictor.prepare(_image())])[0]
    assert 0 < len(found) <= 15
    assert found.image_size == (90, 140)
    assert found.scores is not None
    assert found.masks is not None
    assert np.all(found.scores > 0.2)
    assert np.all(np.diff(found.scores) <= 0)
    assert found.boxes.min() >= 0
    assert np.all(found.boxes[:, 2] <= 140.001)
    assert np.all(found.boxes[:, 3] <= 90.001)
    assert found.masks.size == (90, 140)


def test_pictures_of_a_batch_keep_their_own_frames(model: zoo.LoadedModel) -> None:
    """Different sizes in one batch."""
    predictor = _predictor(model)
    found = predictor.predict([predictor.prepare(_image()), predictor.prepare(_image(64, 64))])
    assert [f.image_size for f in found] == [(90, 140), (64, 64)]


def test_only_wanted_classes_are_kept(model: zoo.LoadedModel) -> None:
    """The same objects as without the filter, less those of other classes."""
    head = "roi_heads.box_predictor.cls_score"
    even = {f"{head}.{k}": model.state[f"{head}.{k}"] * 0 for k in ("weight", "bias")}
    model = replace(model, state={**model.state, **even})  # every class scores 1/4 everywhere
    everything = _predictor(model, max_detections=100)
    wanted = _predictor(model, max_detections=100, classes=("gear",))
    all_found = everything.predict([everything.prepare(_image())])[0]
    found = wanted.predict([wanted.prepare(_image())])[0]
    assert set(all_found.labels.tolist()) > {2}
    assert np.array_equal(found.boxes, all_found[all_found.labels == 2].boxes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param(
            {"classes": ("cat",)}, r"knows no 'cat'; it knows nut, bolt, gear", id="class"
        ),
        pytest.param({"min_size": 900}, "--max-size 640 is less than --min-size 900", id="sizes"),
        pytest.param(
            {"device": "cpu", "decode": "nvjpeg"},
            "--decode nvjpeg needs a CUDA device, the model runs on cpu; use --decode cpu",
            id="decode",
        ),
        pytest.param({"device": "tpu"}, "expected auto, cpu, cuda, cuda:N or mps", id="device"),
    ],
)
def test_settings_that_do_not_fit(
    model: zoo.LoadedModel, settings: dict[str, object], message: str
) -> None:
    """Usage errors that say what would fit."""
    with pytest.raises(UsageError, match=message):
        _predictor(model, **settings)


def test_all_that_changes_predictions_is_recorded(model: zoo.LoadedModel) -> None:
    """As values that TOML and JSON can hold."""
    resolved = _predictor(model, score=0.3).resolved
    assert json.loads(json.dumps(resolved))["score"] == 0.3
    assert {"model_sha256", "conventions", "precision", "threads", "batch_size", "min_size"} <= set(
        resolved
    )
    assert resolved["decode"] == "cpu"


def test_bf16_finds_nearly_the_same(model: zoo.LoadedModel) -> None:
    """The option works on a CPU, and says in `resolved` that it ran."""
    network = model.build()
    predictor = Predictor(network, CLASSES, resolve("cpu", "bf16"), config=PredictConfig())
    found = predictor.predict([predictor.prepare(_image())])[0]
    assert predictor.resolved["precision"] == "bf16"
    assert found.boxes.dtype == np.float32
    assert torch.isfinite(torch.from_numpy(found.boxes)).all()
