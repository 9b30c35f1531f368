"""Every architecture: names of torchvision's own networks, strides by convention, and a training recipe."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import resnet18, resnet34, resnet50, resnet101, resnext101_32x8d
from torchvision.models.detection import maskrcnn_resnet50_fpn_v2
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.resnet import Bottleneck
from torchvision.ops.misc import FrozenBatchNorm2d

from segcli.models import ARCHITECTURES, PRESETS, Anchors, MaskRCNN, ModelSpec
from segcli.models.backbones import FixedBatchNorm2d, build_backbone

STOCK = {
    "mask-rcnn-r18-fpn": (resnet18, [64, 128, 256, 512]),
    "mask-rcnn-r34-fpn": (resnet34, [64, 128, 256, 512]),
    "mask-rcnn-r50-fpn": (resnet50, [256, 512, 1024, 2048]),
    "mask-rcnn-r101-fpn": (resnet101, [256, 512, 1024, 2048]),
    "mask-rcnn-x101-32x8d-fpn": (resnext101_32x8d, [256, 512, 1024, 2048]),
}


def _spec(name: str, preset: str | None = None, classes: int = 3) -> ModelSpec:
    conventions = ARCHITECTURES[name].conventions if preset is None else PRESETS[preset]
    return ModelSpec(name, classes, Anchors(), conventions)


@pytest.mark.parametrize("name", sorted(STOCK))
def test_backbones_are_torchvisions(name: str) -> None:
    """Same names and shapes as torchvision's builder gives, and the same features to the bit."""
    build, channels = STOCK[name]
    stages = {f"layer{k}": str(k - 1) for k in (1, 2, 3, 4)}
    with torch.device("meta"):
        stock = BackboneWithFPN(
            build(weights=None, norm_layer=FrozenBatchNorm2d), stages, channels, 256
        )
        ours = build_backbone(ARCHITECTURES[name], ARCHITECTURES[name].conventions.numerics)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in stock.state_dict().items()
    }
    assert [m.stride for m in ours.modules() if isinstance(m, nn.Conv2d)] == [
        m.stride for m in stock.modules() if isinstance(m, nn.Conv2d)
    ]


@pytest.mark.parametrize(("name", "groups", "width"), [("32x4d", 32, 128), ("64x4d", 64, 256)])
def test_the_other_resnexts(name: str, groups: int, width: int) -> None:
    """Groups of the 3×3 convolutions and their channels in the first stage (Xie et al. 2017, table 1)."""
    row = ARCHITECTURES[f"mask-rcnn-x101-{name}-fpn"]
    with torch.device("meta"):
        backbone = build_backbone(row, row.conventions.numerics)
    blocks = [m for m in backbone.modules() if isinstance(m, Bottleneck)]
    assert len(blocks) == 33
    assert (blocks[0].conv2.groups, blocks[0].conv2.out_channels) == (groups, width)


def test_v2_is_torchvisions_v2() -> None:
    """Its state dict loads strict, counters of batches included, and its outputs are the same to the bit."""
    torch.manual_seed(0)
    stock = maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, num_classes=4).eval()
    network = MaskRCNN(_spec("mask-rcnn-r50-fpn-v2"), "torchvision").eval()
    network.load_state_dict(stock.state_dict(), strict=True)
    images = torch.randn(1, 3, 96, 128)
    with torch.inference_mode():
        ours, theirs = network.backbone(images), stock.backbone(images)
        assert all(torch.equal(ours[k], theirs[k]) for k in theirs)
        pooled = torch.randn(3, 256, 7, 7)
        assert torch.equal(network.roi_heads.box_head(pooled), stock.roi_heads.box_head(pooled))
        logits, _ = network.rpn.head(list(ours.values()))
        expected, _ = stock.rpn.head(list(ours.values()))
        assert all(torch.equal(a, b) for a, b in zip(logits, expected, strict=True))


def test_msras_bottlenecks_stride_in_their_first_convolution() -> None:
    """Three stages halve resolution; torchvision's do it in the 3×3."""
    for preset, place in (("detectron2-r50", 0), ("detectron2-x101", 1), ("mmdetection-caffe", 0)):
        network = MaskRCNN(_spec("mask-rcnn-r50-fpn", preset))
        blocks = [m for m in network.modules() if isinstance(m, Bottleneck)]
        strides = [(b.conv1.stride[0], b.conv2.stride[0]) for b in blocks]
        strided = [pair for pair in strides if pair != (1, 1)]
        assert len(strided) == 3
        assert all(pair[place] == 2 and pair[1 - place] == 1 for pair in strided)


def test_the_form_of_a_fixed_norm_is_the_conventions() -> None:
    """The same numbers but for the last bits; detectron2 and mmdetection use torch's operator."""
    plain, operator = FrozenBatchNorm2d(8), FixedBatchNorm2d(8)
    generator = torch.Generator().manual_seed(0)
    state = {
        k: torch.rand(v.shape, generator=generator) + 0.5 for k, v in plain.state_dict().items()
    }
    for norm in (plain, operator):
        norm.load_state_dict(state)
    x = torch.randn(2, 8, 9, 9, generator=generator)
    expected = nn.functional.batch_norm(
        x, state["running_mean"], state["running_var"], state["weight"], state["bias"]
    )
    assert torch.equal(operator(x), expected)
    assert torch.allclose(plain(x), expected, atol=1e-5)
    for preset, kind in (
        ("torchvision-v1", FrozenBatchNorm2d),
        ("mmdetection-caffe", FixedBatchNorm2d),
    ):
        network = MaskRCNN(_spec("mask-rcnn-r18-fpn", preset))
        norms = [m for m in network.modules() if isinstance(m, FrozenBatchNorm2d)]
        assert len(norms) == 20
        assert all(type(m) is kind for m in norms)


@pytest.mark.parametrize("preset", ["torchvision-v1", "detectron2-r50"])
def test_heads_have_the_rows_of_their_layout(preset: str) -> None:
    """80 classes: 81, 324 and 81 rows, or 81, 320 and 80."""
    heads = MaskRCNN(_spec("mask-rcnn-r18-fpn", preset, 80)).roi_heads
    rows = (
        heads.box_predictor.cls_score.out_features,
        heads.box_predictor.bbox_pred.out_features,
        heads.mask_predictor.mask_fcn_logits.out_channels,
    )
    assert rows == ((81, 324, 81) if preset == "torchvision-v1" else (81, 320, 80))


def test_batch_norms_keep_their_statistics_in_training() -> None:
    """A few pictures have no good ones; weights and offsets learn."""
    network = MaskRCNN(_spec("mask-rcnn-r50-fpn-v2")).train()
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 69
    assert not any(m.training for m in norms)
    assert all(p.requires_grad for m in norms for p in m.parameters())
    assert network.training
    assert network.roi_heads.training


def test_every_architecture_is_named_and_has_a_recipe() -> None:
    """What the issue asks for, and names without a `/`."""
    short = [
        "r18", "r34", "r50", "r101", "x101-32x4d", "x101-32x8d", "x101-64x4d", "mobilenet-v3",
    ]  # fmt: skip
    assert {f"mask-rcnn-{s}-fpn" for s in short} | {
        "mask-rcnn-nano", "mask-rcnn-r50-fpn-v2",
    } == set(ARCHITECTURES)  # fmt: skip
    for name, row in ARCHITECTURES.items():
        assert row.name == name
        assert "/" not in name
        assert row.recipe.batch_size >= 1
        assert 0 < row.recipe.lr < 0.1
