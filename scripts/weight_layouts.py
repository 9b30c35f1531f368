"""Our names as the other families write them: for tests of the readers, and for measuring them.

Written from the families' own module trees, one name at a time, so that it shares no line with the key maps that it
tests (`models/checkpoints/`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

State = dict[str, Tensor]
_HEADS = {
    "rpn.head.conv.0.0": ("proposal_generator.rpn_head.conv", "rpn_head.rpn_conv", "conv_rpn_fpn2"),
    "rpn.head.cls_logits": (
        "proposal_generator.rpn_head.objectness_logits", "rpn_head.rpn_cls", "rpn_cls_logits_fpn2"),
    "rpn.head.bbox_pred": (
        "proposal_generator.rpn_head.anchor_deltas", "rpn_head.rpn_reg", "rpn_bbox_pred_fpn2"),
    "roi_heads.box_head.fc6": ("roi_heads.box_head.fc1", "roi_head.bbox_head.shared_fcs.0", "fc6"),
    "roi_heads.box_head.fc7": ("roi_heads.box_head.fc2", "roi_head.bbox_head.shared_fcs.1", "fc7"),
    "roi_heads.box_predictor.cls_score": (
        "roi_heads.box_predictor.cls_score", "roi_head.bbox_head.fc_cls", "cls_score"),
    "roi_heads.box_predictor.bbox_pred": (
        "roi_heads.box_predictor.bbox_pred", "roi_head.bbox_head.fc_reg", "bbox_pred"),
    "roi_heads.mask_predictor.conv5_mask": (
        "roi_heads.mask_head.deconv", "roi_head.mask_head.upsample", "conv5_mask"),
    "roi_heads.mask_predictor.mask_fcn_logits": (
        "roi_heads.mask_head.predictor", "roi_head.mask_head.conv_logits", "mask_fcn_logits"),
}  # fmt: skip


def to_detectron2(state: State) -> State:
    """Names of detectron2."""
    return _renamed(state, 0, _detectron2_body)


def to_mmdetection(state: State) -> State:
    """Names of mmdetection since 2.0, with the counters that its plain batch norm has."""
    renamed = _renamed(state, 1, lambda name: name.replace("backbone.body.", "backbone."))
    means = [name for name in renamed if name.endswith("running_mean")]
    counters = {n.replace("running_mean", "num_batches_tracked"): torch.tensor(7) for n in means}
    return {**renamed, **counters}


def to_mmdetection1(state: State) -> State:
    """Names of mmdetection 1.x: heads without a prefix."""
    return {name.removeprefix("roi_head."): t for name, t in to_mmdetection(state).items()}


def to_caffe2(state: State) -> State:
    """Detectron's blobs: background first everywhere; norms without statistics, which it folded in.

    Args:
        state: background last, means 0 and variances 1.
    """
    blobs = {}
    for name, tensor in _renamed(state, 2, _caffe2_body).items():
        if name.endswith((".running_mean", ".running_var")):
            continue
        stem, _, part = name.rpartition(".")
        norm = "bn_" if "bn" in stem.rsplit("_", 1)[-1] else ""
        stem = stem.removesuffix("_bn") if norm else stem
        letter = {"weight": "s" if norm else "w", "bias": "b"}[part]
        blobs[f"{stem}_{norm}{letter}"] = _background_first(stem, tensor)
        blobs[f"{stem}_{norm}{letter}_momentum"] = torch.zeros_like(blobs[f"{stem}_{norm}{letter}"])
    return blobs


def _background_first(stem: str, tensor: Tensor) -> Tensor:
    if stem == "cls_score":
        return torch.cat([tensor[-1:], tensor[:-1]])
    rows = {"bbox_pred": 4, "mask_fcn_logits": 1}.get(stem, 0)
    return torch.cat([torch.full_like(tensor[:rows], 99.0), tensor])


def _renamed(state: State, column: int, body: Callable[[str], str]) -> State:
    renamed = {}
    for name, tensor in state.items():
        stem, _, part = name.rpartition(".")
        if stem in _HEADS:
            theirs = f"{_HEADS[stem][column]}.{part}"
        elif name.startswith("roi_heads.mask_head."):
            theirs = f"{_mask_layer(int(stem.split('.')[2]), column)}.{part}"
        elif name.startswith("backbone.fpn."):
            theirs = f"{_pyramid_layer(stem.split('.')[2], int(stem.split('.')[3]), column)}.{part}"
        else:
            theirs = body(name)
        renamed[theirs] = tensor
    return renamed


def _mask_layer(index: int, column: int) -> str:
    return (
        f"roi_heads.mask_head.mask_fcn{index + 1}",
        f"roi_head.mask_head.convs.{index}.conv",
        f"_[mask]_fcn{index + 1}",
    )[column]


def _pyramid_layer(kind: str, level: int, column: int) -> str:
    inner = kind == "inner_blocks"
    last = (2, 3, 5, 2)[level]  # the last block of each stage of a ResNet-50
    lateral = "" if level == 3 else "_lateral"
    return (
        f"backbone.fpn_{'lateral' if inner else 'output'}{level + 2}",
        f"neck.{'lateral_convs' if inner else 'fpn_convs'}.{level}.conv",
        f"fpn_inner_res{level + 2}_{last}_sum{lateral}"
        if inner
        else f"fpn_res{level + 2}_{last}_sum",
    )[column]


def _block(name: str) -> tuple[int, str, str]:
    """Stage from 1, block and the rest of `backbone.body.layerS.B.REST`."""
    _, _, layer, block, rest = name.split(".", 4)
    return int(layer[-1]), block, rest


def _detectron2_body(name: str) -> str:
    if name.startswith("backbone.body.conv1"):
        return "backbone.bottom_up.stem.conv1.weight"
    if name.startswith("backbone.body.bn1."):
        return name.replace("backbone.body.bn1.", "backbone.bottom_up.stem.conv1.norm.")
    stage, block, rest = _block(name)
    for index in "123":
        rest = rest.replace(f"bn{index}.", f"conv{index}.norm.")
    rest = rest.replace("downsample.0.", "shortcut.").replace("downsample.1.", "shortcut.norm.")
    return f"backbone.bottom_up.res{stage + 1}.{block}.{rest}"


def _caffe2_body(name: str) -> str:
    if name.startswith("backbone.body.conv1"):
        return "conv1.weight"
    if name.startswith("backbone.body.bn1."):
        return name.replace("backbone.body.bn1.", "res_conv1_bn.")
    stage, block, rest = _block(name)
    for index, letter in zip("123", "abc", strict=True):
        rest = rest.replace(f"conv{index}.", f"branch2{letter}.")
        rest = rest.replace(f"bn{index}.", f"branch2{letter}_bn.")
    rest = rest.replace("downsample.0.", "branch1.").replace("downsample.1.", "branch1_bn.")
    return f"res{stage + 1}_{block}_{rest}"
