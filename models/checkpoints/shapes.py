"""Which network a state dict belongs to, read from the names and shapes of its tensors."""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import Tensor

from segcli.models.class_layout import BACKGROUND_FIRST, BACKGROUND_LAST, ClassLayout

_BODY = "backbone.body."
_STEM = f"{_BODY}layer1.0.conv2.weight"
_HEADS = {
    "scores": "roi_heads.box_predictor.cls_score.weight",
    "boxes": "roi_heads.box_predictor.bbox_pred.weight",
    "masks": "roi_heads.mask_predictor.mask_fcn_logits.weight",
}


@dataclass(frozen=True)
class _Residual:
    """A ResNet's or ResNeXt's shape: three convolutions per block or two, blocks per stage, width, width per group."""

    bottleneck: bool
    blocks: tuple[int, ...]
    width: int
    group_width: int


_NETWORKS = {
    _Residual(False, (2, 2, 2, 2), 64, 64): "r18",
    _Residual(False, (3, 4, 6, 3), 64, 64): "r34",
    _Residual(True, (3, 4, 6, 3), 64, 64): "r50",
    _Residual(True, (3, 4, 23, 3), 64, 64): "r101",
    _Residual(True, (3, 4, 23, 3), 128, 4): "x101-32x4d",
    _Residual(True, (3, 4, 23, 3), 256, 8): "x101-32x8d",
    _Residual(True, (3, 4, 23, 3), 256, 4): "x101-64x4d",
}


def architecture_of(state: dict[str, Tensor]) -> str:
    """Name of the architecture, as `segcli.models.ARCHITECTURES` has it.

    Args:
        state: under our names.

    Raises:
        ValueError: a backbone or heads that segcli does not have.
    """
    _require_parts(state)
    deep_heads = "backbone.fpn.inner_blocks.0.1.weight" in state
    name = "mobilenet-v3" if f"{_BODY}0.0.weight" in state else _residual(state)
    if deep_heads and name != "r50":
        raise ValueError(f"batch norm in FPN and heads is known of r50 only, not of {name}")
    return f"mask-rcnn-{name}-fpn" + ("-v2" if deep_heads else "")


def _require_parts(state: dict[str, Tensor]) -> None:
    parts = {
        "a mask head": _HEADS["masks"],
        "a box head": _HEADS["scores"],
        "box deltas": _HEADS["boxes"],
        "an FPN": "backbone.fpn.inner_blocks.0.0.weight",
        "an RPN": "rpn.head.cls_logits.weight",
    }
    for what, name in parts.items():
        if name not in state:
            raise ValueError(f"has no {what.split(' ', 1)[1]}, expected a Mask R-CNN with FPN")


def _residual(state: dict[str, Tensor]) -> str:
    blocks = [0, 0, 0, 0]
    for name in state:
        match = re.match(r"backbone\.body\.layer([1-4])\.(\d+)\.", name)
        if match is not None:
            stage = int(match[1]) - 1
            blocks[stage] = max(blocks[stage], int(match[2]) + 1)
    if _STEM not in state or state[_STEM].dim() != 4:
        raise ValueError("the backbone is no ResNet, ResNeXt or MobileNet-V3")
    width, group_width = state[_STEM].shape[:2]
    bottleneck = f"{_BODY}layer1.0.conv3.weight" in state
    found = _Residual(bottleneck, tuple(blocks), width, group_width)
    if found not in _NETWORKS:
        groups = width // group_width if group_width else 0
        raise ValueError(
            f"the backbone is not supported: {' + '.join(map(str, blocks))} "
            f"{'bottlenecks' if bottleneck else 'basic blocks'}, width {width} in {groups} groups"
        )
    return _NETWORKS[found]


def class_rows(state: dict[str, Tensor]) -> tuple[int, ClassLayout]:
    """Foreground classes, and the layout that the rows of the heads allow.

    Whether the background is first or last is not in the shapes; heads of both kinds that are in use put it first
    where boxes and masks have rows for it too (torchvision, mmdetection 1.x) and last where they have none.

    Raises:
        ValueError: class-agnostic heads, or rows that fit no layout.
    """
    scores, boxes, masks = (len(state[_HEADS[name]]) for name in ("scores", "boxes", "masks"))
    classes = scores - 1
    for layout in (BACKGROUND_FIRST, BACKGROUND_LAST):
        if (boxes, masks) == (layout.box_rows(classes), layout.mask_rows(classes)):
            return classes, layout
    if classes > 1 and (boxes == 4 or masks == 1):
        raise ValueError("class-agnostic heads are not supported")
    raise ValueError(
        f"heads have {scores} score, {boxes} box and {masks} mask rows, which fit no layout"
    )


def has_counters(native: dict[str, Tensor]) -> bool:
    """Whether the backbone's norms count batches, as plain batch norm does and frozen does not."""
    return any(n.startswith("backbone.") and n.endswith(".num_batches_tracked") for n in native)
