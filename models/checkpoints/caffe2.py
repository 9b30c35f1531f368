"""Caffe2's blobs, as Detectron (the first) wrote them: flat names, background first.

detectron2 runs such weights with the class rows in its own order (checkpoint/c2_model_loading.py:183-199), so they
get that order here: the background's row of the class scores goes to the end, and its four rows of box deltas and one
of mask logits, which nothing was ever trained for, go.
"""

from __future__ import annotations

import torch
from torch import Tensor

from segcli.models.checkpoints.names import KeyMap

_BRANCH = {"1": "downsample", "2a": "conv1", "2b": "conv2", "2c": "conv3"}
_NORM = {"1": "downsample.1", "2a": "bn1", "2b": "bn2", "2c": "bn3"}
_AFFINE = (
    *(("s", "weight"), ("b", "bias"), ("rm", "running_mean"), ("riv", "running_var")),
    *(
        ("gamma", "weight"),
        ("beta", "bias"),
        ("running_mean", "running_mean"),
        ("running_var", "running_var"),
    ),
)
_PARTS = (("w", "weight"), ("b", "bias"))


def _blocks() -> list[tuple[str, str]]:
    """`res2_0_branch2a_w` … `res5_2_branch2c_bn_b`."""
    rules: list[tuple[str, str]] = []
    for stage in range(1, 5):
        ours = rf"backbone.body.layer{stage}.\1."
        for theirs, conv in _BRANCH.items():
            blob = rf"res{stage + 1}_(\d+)_branch{theirs}"
            weight = f"{conv}.0.weight" if theirs == "1" else f"{conv}.weight"
            rules.append((rf"{blob}_w", ours + weight))
            rules += [(rf"{blob}_bn_{a}", f"{ours}{_NORM[theirs]}.{b}") for a, b in _AFFINE]
    return rules


def _pyramid() -> list[tuple[str, str]]:
    """`fpn_inner_res5_2_sum_w` (top), `fpn_inner_res4_5_sum_lateral_w` … and `fpn_res2_2_sum_w`."""
    return [
        rule
        for level in range(4)
        for a, b in _PARTS
        for rule in (
            (rf"fpn_inner_res{level + 2}_\d+_sum(?:_lateral)?_{a}", f"backbone.fpn.inner_blocks.{level}.0.{b}"),
            (rf"fpn_res{level + 2}_\d+_sum_{a}", f"backbone.fpn.layer_blocks.{level}.0.{b}"),
        )
    ]  # fmt: skip


def _heads() -> list[tuple[str, str]]:
    names = {
        "conv_rpn_fpn2": "rpn.head.conv.0.0",
        "rpn_cls_logits_fpn2": "rpn.head.cls_logits",
        "rpn_bbox_pred_fpn2": "rpn.head.bbox_pred",
        "fc6": "roi_heads.box_head.fc6",
        "fc7": "roi_heads.box_head.fc7",
        "cls_score": "roi_heads.box_predictor.cls_score",
        "bbox_pred": "roi_heads.box_predictor.bbox_pred",
        "conv5_mask": "roi_heads.mask_predictor.conv5_mask",
        "mask_fcn_logits": "roi_heads.mask_predictor.mask_fcn_logits",
        **{f"_mask__fcn{k + 1}": f"roi_heads.mask_head.{k}.0" for k in range(4)},
        **{f"_\\[mask\\]_fcn{k + 1}": f"roi_heads.mask_head.{k}.0" for k in range(4)},
    }
    return [(rf"{blob}_{a}", f"{ours}.{b}") for blob, ours in names.items() for a, b in _PARTS]


KEYS = KeyMap(
    family="Detectron (Caffe2)",
    rename=[
        (r"conv1_w", r"backbone.body.conv1.weight"),
        *((rf"res_conv1_bn_{a}", f"backbone.body.bn1.{b}") for a, b in _AFFINE),
        *_blocks(),
        *_pyramid(),
        *_heads(),
    ],
    drop=[r".*_momentum", r"lr", r"weight_order", r"model_iter", r"conv1_b"],
    refuse=[
        (r"kps_|conv_fcn\d", "a keypoint head"),
        (r"retnet_", "RetinaNet"),
        (r"conv_rpn_[wb]|rpn_cls_logits_[wb]|rpn_bbox_pred_[wb]", "a network without FPN (C4)"),
        (r"head_conv\d|.*_gn_", "group norm or a box head with convolutions"),
        (r"(pred|fc1000|last_out)_", "an ImageNet backbone without detection heads"),
    ],
)  # fmt: skip


def to_unified(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our names for Caffe2's, class rows in detectron2's order, norms with the statistics that Caffe2 folded in.

    Raises:
        ValueError: not the blobs of a Mask R-CNN with ResNet and FPN.
    """
    renamed = KEYS.apply(state)
    for name in [
        n for n in renamed if n.endswith((".bn1.weight", ".bn2.weight", ".bn3.weight", ".1.weight"))
    ]:
        if name.startswith("backbone.body."):
            _add_statistics(renamed, name.removesuffix("weight"))
    for part in ("weight", "bias"):
        scores = renamed[f"roi_heads.box_predictor.cls_score.{part}"]
        renamed[f"roi_heads.box_predictor.cls_score.{part}"] = torch.cat([scores[1:], scores[:1]])
        for name, rows in (
            (f"roi_heads.box_predictor.bbox_pred.{part}", 4),
            (f"roi_heads.mask_predictor.mask_fcn_logits.{part}", 1),
        ):
            renamed[name] = renamed[name][rows:].clone()
    return renamed


def _add_statistics(state: dict[str, Tensor], prefix: str) -> None:
    """Caffe2's AffineChannel has scale and shift; detectron2 takes mean 0, variance 1 (layers/batch_norm.py)."""
    scale = state[prefix + "weight"]
    state.setdefault(prefix + "running_mean", torch.zeros_like(scale))
    state.setdefault(prefix + "running_var", torch.ones_like(scale))
