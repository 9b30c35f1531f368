"""The detector against the network it is made of, for every family's conventions and every kind of backbone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from segcli.models import ARCHITECTURES, PRESETS, Anchors, Conventions, MaskRCNN, ModelSpec
from segcli.models.inference import Detector, Trunk
from segcli.preprocess import collate

SIZES = [(120, 150), (96, 128)]


def _network(name: str, conventions: Conventions) -> MaskRCNN:
    """Random weights, norms that are not the identity, scores that are spread."""
    torch.manual_seed(0)
    network = MaskRCNN(ModelSpec(name, 5, Anchors(), conventions)).eval()
    with torch.no_grad():
        for key, tensor in network.state_dict().items():
            if key.endswith("running_var"):
                tensor.uniform_(0.5, 2.0)
            elif key.endswith(("running_mean", "bn3.bias")):
                tensor.normal_(std=0.1)
            elif key.endswith("bn3.weight"):
                tensor.fill_(0.3)
        network.roi_heads.box_predictor.cls_score.weight.mul_(30)
        nn.init.normal_(network.roi_heads.box_predictor.bbox_pred.bias)
        nn.init.normal_(network.roi_heads.mask_predictor.mask_fcn_logits.bias)
    network.set_limits(score=0.05, max_detections=40)
    network.rpn._post_nms_top_n["testing"] = 100  # so that the tests are fast
    return network


def _compare(network: MaskRCNN) -> None:
    torch.manual_seed(1)
    batch, sizes = collate([torch.randn(3, *size) for size in SIZES], 32)
    with torch.inference_mode():
        expected = network(batch, sizes)
    found = Detector(network)(batch, sizes, score=0.05, max_detections=40)
    assert isinstance(expected, list)
    for ours, theirs in zip(found, expected, strict=True):
        assert len(theirs.boxes) > 5
        assert torch.equal(ours.labels, theirs.labels)
        assert int(theirs.labels.max()) <= 4
        assert (ours.boxes - theirs.boxes).abs().max() <= 1e-2
        assert (ours.scores - theirs.scores).abs().max() <= 2e-4
        assert (ours.masks - theirs.masks).abs().max() <= 1e-3


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_preset(preset: str) -> None:
    """A ResNet-18 with each family's conventions."""
    _compare(_network("mask-rcnn-r18-fpn", PRESETS[preset]))


@pytest.mark.parametrize(
    "name",
    ["mask-rcnn-r50-fpn-v2", "mask-rcnn-mobilenet-v3-fpn", "mask-rcnn-x101-32x4d-fpn"],
)
def test_every_kind_of_network(name: str) -> None:
    """Batch norm in all parts with deeper heads; hard swish with squeeze and excitation; grouped convolutions."""
    _compare(_network(name, ARCHITECTURES[name].conventions))


def test_bottlenecks_that_stride_first() -> None:
    """MSRA's and Caffe's ResNet-50."""
    _compare(_network("mask-rcnn-r50-fpn", PRESETS["mmdetection-caffe"]))


@pytest.mark.parametrize("name", ["mask-rcnn-r50-fpn-v2", "mask-rcnn-mobilenet-v3-fpn"])
def test_the_trunk_gives_the_networks_features(name: str) -> None:
    """Norms folded; features of the plain modules within rounding."""
    network = _network(name, ARCHITECTURES[name].conventions)
    images = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        expected = list(network.backbone(images).values())
        found = Trunk.grouped(Trunk(network).eval()(images))
    for ours, theirs in zip(found.features, expected[:4], strict=True):
        assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


def test_nothing_is_proposed() -> None:
    """A deep box head on no proposal at all."""
    network = _network("mask-rcnn-r50-fpn-v2", PRESETS["torchvision-v2"])
    detector = Detector(network)
    found = detector.run_trunk(torch.randn(1, 3, 64, 64))
    boxes = detector.boxes(found, [torch.zeros(0, 4)], [(64, 64)], score=0.05, max_detections=9)
    masks = detector.masks(found, [b for b, _, _ in boxes], [k for _, _, k in boxes])
    assert boxes[0][0].shape == (0, 4)
    assert masks[0].shape == (0, 28, 28)


@pytest.mark.parametrize("name", ["mask-rcnn-r50-fpn-v2", "mask-rcnn-mobilenet-v3-fpn"])
def test_bf16(name: str) -> None:
    """Every backbone runs in 16 bits; boxes stay float32."""
    network = _network(name, ARCHITECTURES[name].conventions)
    detector = Detector(network, dtype=torch.bfloat16)
    (found,) = detector(torch.randn(1, 3, 64, 96), [(64, 96)], score=0.01, max_detections=9)
    assert len(found.boxes)
    assert found.boxes.dtype == torch.float32
    assert found.masks.isfinite().all()
