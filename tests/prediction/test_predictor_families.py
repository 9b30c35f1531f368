"""The way from the network's frame to the picture's, by family, and one picture through every preset."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segcli.categories import Categories
from segcli.config import PredictConfig
from segcli.device import resolve
from segcli.models import PRESETS, Anchors, Detections, MaskRCNN, ModelSpec
from segcli.prediction.predictor import Predictor

NAMES = Categories.from_names(["a", "b"])


def _predictor(preset: str) -> Predictor:
    torch.manual_seed(0)
    network = MaskRCNN(ModelSpec("mask-rcnn-r18-fpn", 2, Anchors(), PRESETS[preset])).eval()
    network.rpn._post_nms_top_n["testing"] = 50  # so that the test is fast
    with torch.no_grad():
        network.roi_heads.box_predictor.cls_score.weight.mul_(30)
    config = PredictConfig(min_size=96, max_size=160, score=0.05)
    return Predictor(network, NAMES, resolve("cpu", "fp32"), config=config)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_family_predicts_in_the_frame_of_the_picture(preset: str) -> None:
    """Boxes inside, labels of the two classes, scores falling."""
    predictor = _predictor(preset)
    image = np.random.default_rng(0).integers(0, 256, (61, 90, 3), dtype=np.uint8)
    (found,) = predictor.predict([predictor.prepare(image)])
    assert found.image_size == (61, 90)
    assert found.scores is not None
    assert found.masks is not None
    assert len(found) == len(found.masks) > 0
    assert set(found.labels.tolist()) <= {0, 1}
    assert np.all(np.diff(found.scores) <= 0)
    assert found.boxes.min() >= 0
    assert np.all(found.boxes[:, 2:].max(0) <= np.array([90, 61]) + 0.01)


def test_detectron2_drops_what_is_empty_after_clipping() -> None:
    """Its box goes with its score, label and mask; the others keep all."""
    boxes = torch.tensor([[0.0, 0.0, 20.0, 20.0], [5.0, 5.0, 5.0, 30.0], [4.0, 4.0, 60.0, 60.0]])
    detections = Detections(
        boxes, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 1, 1]), torch.ones(3, 28, 28)
    )
    for preset, left in (("detectron2-r50", [0, 1]), ("mmdetection-pytorch", [0, 1, 1])):
        found = _predictor(preset).instances(detections, (80, 80), (40, 40))
        assert found.labels.tolist() == left
        assert found.scores is not None
        assert found.masks is not None
        assert len(found.scores) == len(found.masks) == len(left)
        assert found.boxes[-1].tolist() == [2.0, 2.0, 30.0, 30.0]
