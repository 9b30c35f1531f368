"""Our network against the recorded outputs of detectron2, mmdetection and torchvision, stage by stage.

By default on the first picture of every model, and three of ResNet-50's; all with `SEGCLI_FIDELITY=all` (ten minutes).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from segcli.images import read_image

EVERYTHING = os.environ.get("SEGCLI_FIDELITY") == "all"
NAMES = [
    "d2_mask_rcnn_R_50_FPN_3x",
    "d2_mask_rcnn_X_101_32x8d_FPN_3x",
    "mm_mask_rcnn_r101_fpn",
    "mm_mask_rcnn_r50_caffe_fpn",
    "mm_mask_rcnn_r50_fpn",
    "mm_mask_rcnn_x101_32x4d_fpn",
    "tv_maskrcnn_resnet50_fpn",
    "tv_maskrcnn_resnet50_fpn_v2",
]


def test_all_models_are_tested(fidelity: Any) -> None:
    """The table of the script names the same eight."""
    assert sorted(fidelity.recorded.CONFIGS) == NAMES


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_stage_is_within_its_tolerance(
    name: str, fidelity: Any, shared: Callable[[str], Path]
) -> None:
    """Input, C2 … C5, P2 … P6, RPN, proposals, boxes, scores, labels, masks."""
    fixtures, config = shared("fixtures"), fidelity.recorded.CONFIGS[name]
    shared(f"fixtures/{name}")
    network = fidelity.recorded.network(fixtures, config)
    predictor = fidelity.stages.StagedPredictor(network)
    usual = "abc" if config.architecture == "mask-rcnn-r50-fpn" else "a"
    for image in config.images if EVERYTHING else usual:
        record = fidelity.recorded.record(fixtures, config, image)
        found = fidelity.stages.compare(predictor, config, record)
        assert len(found) >= 13
        assert [str(d) for d in found if not d.within] == []


@pytest.mark.slow
@pytest.mark.skipif(not EVERYTHING, reason="only with SEGCLI_FIDELITY=all")
@pytest.mark.parametrize("name", NAMES)
def test_the_network_itself_gives_the_same(
    name: str, fidelity: Any, shared: Callable[[str], Path]
) -> None:
    """`MaskRCNN` in evaluation mode, whose norms are not folded and which decodes every anchor."""
    fixtures, config = shared("fixtures"), fidelity.recorded.CONFIGS[name]
    network = fidelity.recorded.network(fixtures, config)
    predictor = fidelity.stages.StagedPredictor(network)
    record = fidelity.recorded.record(fixtures, config, "a")
    outcome = predictor.run(read_image(record.picture))
    network.set_limits(score=0.05, max_detections=100)
    with torch.inference_mode():
        (detections,) = network(outcome.batch, [outcome.prepared.size])
    found = fidelity.stages.final_differences(predictor.finish(detections, outcome), config, record)
    assert [str(d) for d in found if not d.within] == []


def test_a_wrong_convention_shows(fidelity: Any, shared: Callable[[str], Path]) -> None:
    """The comparison is one that can fail: with pictures in RGB the input differs."""
    fixtures = shared("fixtures")
    config = fidelity.recorded.CONFIGS["d2_mask_rcnn_R_50_FPN_3x"]
    record = fidelity.recorded.record(fixtures, config, "c")
    from dataclasses import replace

    from segcli.models import PRESETS
    from segcli.preprocess import collate, prepare

    wrong = replace(PRESETS[config.preset].preprocess, channel_order="rgb")
    prepared = prepare(read_image(record.picture), wrong)
    batch, _ = collate([prepared.tensor], 32)
    outcome = fidelity.stages.Outcome(batch, prepared, [], None, None, None, None)
    found = {d.stage: d.within for d in fidelity.stages.input_differences(outcome, config, record)}
    assert found == {"input size": True, "input bits": False}
