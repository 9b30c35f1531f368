"""Test-time augmentation: frames, mirrored views, merging."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from segcli import zoo
from segcli.categories import Categories
from segcli.config import PredictConfig
from segcli.prediction.loading import open_predictor, predictor_for
from segcli.prediction.predictor import Predictor
from segcli.prediction.tta import SCALES, AugmentedPredictor, _ratio, _View

CLASSES = Categories.from_names(["nut", "bolt"])


@pytest.fixture(scope="module")
def inner() -> Predictor:
    """A nano with random weights whose scores spread."""
    made = zoo.new_model("mask-rcnn-nano", CLASSES, seed=0)
    made.state["roi_heads.box_predictor.cls_score.weight"] *= 30
    config = PredictConfig(
        precision="fp32", score=0.3, max_detections=12, min_size=96, max_size=160
    )
    return predictor_for(made, config)


def _image(height: int = 90, width: int = 140) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_frames_there_and_back() -> None:
    """A box of the original is itself again after a view, mirrored or not."""
    boxes = torch.tensor([[10.0, 20, 50, 60], [0, 0, 140, 90]])
    for mirrored in (False, True):
        view = _View(None, (180, 280), mirrored)  # type: ignore[arg-type]
        assert torch.allclose(view.there(view.here(boxes, (90, 140)), (90, 140)), boxes)
    mirrored_box = _View(None, (180, 280), True).here(boxes[:1], (90, 140))  # type: ignore[arg-type]
    assert mirrored_box.tolist() == [[180.0, 40.0, 260.0, 120.0]]
    assert _ratio((90, 140), (180, 280)).tolist() == [2.0, 2.0, 2.0, 2.0]


def test_objects_lie_in_the_original(inner: Predictor) -> None:
    """Boxes, masks and limits as without augmentation; scores fall."""
    predictor = AugmentedPredictor(inner)
    (found,) = predictor.predict([predictor.prepare(_image())])
    assert 0 < len(found) <= 12
    assert found.image_size == (90, 140)
    assert found.scores is not None
    assert found.masks is not None
    assert found.masks.size == (90, 140)
    assert np.all(np.diff(found.scores) <= 0)
    assert found.boxes.min() >= -1e-3
    assert np.all(found.boxes[:, 2] <= 140.01)


def test_a_mirrored_picture_gives_mirrored_objects(inner: Predictor) -> None:
    """Every view of the mirrored picture is one of the picture itself, so the results agree."""
    predictor = AugmentedPredictor(inner)
    image = _image()
    (straight,) = predictor.predict([predictor.prepare(image)])
    (turned,) = predictor.predict([predictor.prepare(image[:, ::-1].copy())])
    assert len(straight) == len(turned) > 0
    assert straight.scores is not None
    assert turned.scores is not None
    assert np.allclose(straight.scores, turned.scores, atol=1e-3)
    mirrored = turned.boxes.copy()
    mirrored[:, [0, 2]] = 140 - turned.boxes[:, [2, 0]]
    assert np.allclose(np.sort(mirrored, 0), np.sort(straight.boxes, 0), atol=0.3)


def test_one_view_alone_is_the_plain_prediction(
    inner: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the usual size only and what is mirrored left out, nothing changes."""
    predictor = AugmentedPredictor(inner)
    monkeypatch.setattr("segcli.prediction.tta.SCALES", (1.0,))
    look = predictor._look

    def plain(picture: object, *, mirrored: bool) -> object:
        return look(picture, mirrored=False)  # type: ignore[arg-type]

    monkeypatch.setattr(predictor, "_look", plain)
    image = _image()
    (found,) = predictor.predict([predictor.prepare(image)])
    (expected,) = inner.predict([inner.prepare(image)])
    assert np.array_equal(found.labels, expected.labels)
    assert np.allclose(found.boxes, expected.boxes, atol=1e-3)
    assert found.masks is not None
    assert expected.masks is not None
    for i in range(len(found)):
        assert (found.masks.full(i) != expected.masks.full(i)).sum() <= 10


def test_nothing_found(inner: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    """No box in any view."""
    monkeypatch.setattr(inner, "score", 1.0)
    predictor = AugmentedPredictor(inner)
    (found,) = predictor.predict([predictor.prepare(_image(1, 60))])
    assert len(found) == 0
    assert found.image_size == (1, 60)


def test_it_is_recorded_and_tiles_go_around_it(tmp_path: object) -> None:
    """`--tta` changes predictions, so `resolved` holds it; with `--tile`, tiles are augmented."""
    from pathlib import Path

    file = Path(str(tmp_path)) / "m.safetensors"
    zoo.save_model(file, zoo.new_model("mask-rcnn-nano", CLASSES, seed=0))
    config = PredictConfig(model=str(file), tta=True, tile=64, min_size=64, max_size=96)
    predictor = open_predictor(config)
    resolved = json.loads(json.dumps(predictor.resolved))
    assert resolved["tta"] is True
    assert resolved["tta_scales"] == list(SCALES)
    assert resolved["tile"] == 64
    pictures: Sequence[object] = [predictor.prepare(_image(70, 100))]
    assert predictor.predict(pictures)[0].image_size == (70, 100)
