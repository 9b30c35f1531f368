"""Key maps: names and shapes of the fixtures, which the families' own code made, and what is refused by its name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from segcli.models import Anchors, MaskRCNN, ModelSpec
from segcli.models.checkpoints import caffe2, detectron2, mmdetection, torchvision
from segcli.models.checkpoints.families import identify
from segcli.models.class_layout import BACKGROUND_FIRST, BACKGROUND_LAST
from segcli.models.presets import preset

State = dict[str, Tensor]
FIXTURES = {
    "d2_mask_rcnn_R_50_FPN_3x": ("detectron2", "mask-rcnn-r50-fpn", "detectron2-r50"),
    "d2_mask_rcnn_X_101_32x8d_FPN_3x": ("detectron2", "mask-rcnn-x101-32x8d-fpn", "detectron2-x101"),
    "mm_mask_rcnn_r50_fpn": ("mmdetection", "mask-rcnn-r50-fpn", "mmdetection-pytorch"),
    "mm_mask_rcnn_r50_caffe_fpn": ("mmdetection", "mask-rcnn-r50-fpn", "mmdetection-caffe"),
    "mm_mask_rcnn_r101_fpn": ("mmdetection", "mask-rcnn-r101-fpn", "mmdetection-pytorch"),
    "mm_mask_rcnn_x101_32x4d_fpn": ("mmdetection", "mask-rcnn-x101-32x4d-fpn", "mmdetection-pytorch"),
    "tv_maskrcnn_resnet50_fpn": ("torchvision", "mask-rcnn-r50-fpn", "torchvision-v1"),
    "tv_maskrcnn_resnet50_fpn_v2": ("torchvision", "mask-rcnn-r50-fpn-v2", "torchvision-v2"),
}  # fmt: skip


def _native(folder: Path) -> State:
    """Names and shapes of a fixture, without memory."""
    tensors = json.loads((folder / "state_dict.json").read_text(encoding="utf-8"))["tensors"]
    return {
        name: torch.empty(entry["shape"], dtype=getattr(torch, entry["dtype"]), device="meta")
        for name, entry in tensors.items()
    }


@pytest.mark.parametrize("name", FIXTURES)
def test_every_name_of_the_fixtures_fits_our_network(
    name: str, shared: Callable[[str], Path]
) -> None:
    """Family, architecture and classes are found, and every tensor has its place and shape."""
    family, architecture, conventions = FIXTURES[name]
    found = identify(_native(shared(f"fixtures/{name}")))
    assert (found.family, found.architecture) == (family, architecture)
    assert found.classes == (90 if family == "torchvision" else 80)
    assert found.class_layout == (BACKGROUND_FIRST if family == "torchvision" else BACKGROUND_LAST)
    with torch.device("meta"):
        spec = ModelSpec(architecture, found.classes, Anchors(), preset(conventions))
        network = MaskRCNN(spec).state_dict()
    ours = {n: t.shape for n, t in network.items() if not n.endswith("num_batches_tracked")}
    assert {n: t.shape for n, t in found.state.items()} == ours


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("d2_mask_rcnn_R_50_C4_3x", "C4 is not supported"),
        ("d2_keypoint_rcnn_R_50_FPN_3x", "a keypoint head is not supported"),
        ("tv_keypointrcnn_resnet50_fpn", "a keypoint head is not supported"),
    ],
)
def test_other_networks_of_the_fixtures(
    name: str, what: str, shared: Callable[[str], Path]
) -> None:
    """Refused by their name."""
    with pytest.raises(ValueError, match=what):
        identify(_native(shared(f"fixtures/{name}")))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("proposal_generator.rpn_head.conv.conv0.weight", "conv_dims"),
        ("roi_heads.box_head.0.fc1.weight", "Cascade"),
        ("roi_heads.mask_head.coarse_head.conv1.weight", "PointRend"),
        ("roi_heads.mask_point_head.fc1.weight", "PointRend"),
        ("backbone.fpn_lateral2.norm.weight", "a norm in FPN or heads"),
        ("roi_heads.box_head.conv1.weight", "a box head with convolutions"),
        ("backbone.bottom_up.res3.0.conv2_offset.weight", "deformable"),
        ("backbone.bottom_up.stages.0.weight", "other than ResNet"),
        ("sem_seg_head.p2.0.weight", "Panoptic"),
        ("backbone.res2.0.conv1.weight", "DC5"),
        ("roi_heads.mask_head.mask_fcn5.weight", "is no part of a detectron2"),
    ],
)
def test_detectron2_networks_that_are_not_supported(extra: str, message: str) -> None:
    """By name."""
    native = {"backbone.bottom_up.stem.conv1.weight": torch.zeros(1), extra: torch.zeros(1)}
    with pytest.raises(ValueError, match=message):
        detectron2.to_unified(native)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("roi_head.bbox_head.0.fc_cls.weight", "Cascade or HTC"),
        ("bbox_head.0.fc_cls.weight", "Cascade or HTC"),
        ("roi_head.mask_iou_head.fc.weight", "Mask Scoring"),
        ("roi_head.point_head.fcs.0.weight", "PointRend"),
        ("roi_head.bbox_head.shared_convs.0.conv.weight", "a box head with convolutions"),
        ("neck.lateral_convs.0.gn.weight", "a norm in FPN or heads"),
        ("neck.lateral_convs.0.bn.weight", "a norm in FPN or heads"),
        ("neck.fpn_convs.4.conv.weight", "convolutions above P5"),
        ("neck.0.lateral_convs.0.conv.weight", "a neck other than FPN"),
        ("backbone.layer2.0.conv2.conv_offset.weight", "deformable"),
        ("backbone.stem.0.weight", "deep stem"),
        ("backbone.patch_embed.projection.weight", "this backbone"),
        ("rpn_head.rpn_conv.0.conv.weight", "an RPN of several convolutions"),
        ("bbox_head.retina_cls.weight", "one-stage"),
        ("roi_head.bbox_head.other.weight", "is no part of a mmdetection"),
    ],
)
def test_mmdetection_networks_that_are_not_supported(extra: str, message: str) -> None:
    """By name."""
    native = {"backbone.conv1.weight": torch.zeros(1), extra: torch.zeros(1)}
    with pytest.raises(ValueError, match=message):
        mmdetection.to_unified(native)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("kps_score_w", "a keypoint head"),
        ("retnet_cls_conv_n0_fpn3_w", "RetinaNet"),
        ("conv_rpn_w", "without FPN"),
        ("head_conv1_gn_s", "group norm"),
        ("fc1000_w", "an ImageNet backbone"),
        ("what_is_this", "is no part of a Detectron"),
    ],
)
def test_detectron_networks_that_are_not_supported(name: str, message: str) -> None:
    """By name."""
    with pytest.raises(ValueError, match=message):
        caffe2.to_unified({"res2_0_branch2a_w": torch.zeros(1), name: torch.zeros(1)})


def test_old_names_of_torchvision() -> None:
    """Of before 2022, as the zoo's own v1 file has them; today's stay."""
    old = {
        "rpn.head.conv.weight": "rpn.head.conv.0.0.weight",
        "backbone.fpn.inner_blocks.2.bias": "backbone.fpn.inner_blocks.2.0.bias",
        "backbone.fpn.layer_blocks.0.weight": "backbone.fpn.layer_blocks.0.0.weight",
        "roi_heads.mask_head.mask_fcn4.bias": "roi_heads.mask_head.3.0.bias",
        "roi_heads.box_head.fc6.weight": "roi_heads.box_head.fc6.weight",
        "backbone.body.layer1.0.bn1.running_var": "backbone.body.layer1.0.bn1.running_var",
    }
    native = {name: torch.rand(2) for name in old}
    renamed = torchvision.to_unified(native)
    assert all(renamed[ours] is native[name] for name, ours in old.items())
    assert list(torchvision.to_unified(renamed)) == list(renamed)
    with pytest.raises(ValueError, match="twice"):
        torchvision.to_unified({**native, **renamed})


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["layer1.0.conv1.weight"], "a classification ResNet"),
        (["features.0.weight"], "a classification network"),
        (["backbone.features.0.weight", "head.classification_head.x"], "one-stage"),
        (["transformer.encoder.weight"], "a DETR"),
        (["something"], "names such as 'something'"),
        (["backbone.body.conv1.weight"], "has no mask head"),
    ],
)
def test_what_is_no_mask_rcnn(names: list[str], message: str) -> None:
    """Named where it is known."""
    with pytest.raises(ValueError, match=message):
        identify({name: torch.zeros(1) for name in names})
