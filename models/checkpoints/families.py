"""The family that wrote a state dict, told by its names; from here on all weights are under our names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from segcli.models.checkpoints import caffe2, detectron2, mmdetection, torchvision
from segcli.models.checkpoints.shapes import architecture_of, class_rows, has_counters
from segcli.models.class_layout import BACKGROUND_FIRST, BACKGROUND_LAST, ClassLayout

Family = Literal["torchvision", "detectron2", "mmdetection"]
_ToUnified = Callable[[dict[str, Tensor]], dict[str, Tensor]]


@dataclass(frozen=True, eq=False)
class Weights:
    """A state dict under our names, and what its names and shapes say.

    Attributes:
        family: whose conventions it follows.
        layout: whose names the file had.
        architecture: as `segcli.models.ARCHITECTURES` names it.
        classes: without background.
        class_layout: which rows of the heads belong to which class.
        plain_norm: the backbone's norms were plain batch norm, not frozen; told by counters that only plain has.
        state: float32.
    """

    family: Family
    layout: str
    architecture: str
    classes: int
    class_layout: ClassLayout
    plain_norm: bool
    state: dict[str, Tensor]


# (starts or parts of names, family, layout, key map), asked in this order
_LAYOUTS: tuple[tuple[tuple[str, ...], Family, str, _ToUnified], ...] = (
    (
        ("backbone.bottom_up.", "proposal_generator.", "roi_heads.res5.", "sem_seg_head."),
        "detectron2", "detectron2", detectron2.to_unified,
    ),
    (
        ("neck.", "rpn_head.", "bbox_head.", "roi_head.", "mask_head.", "backbone.layer1."),
        "mmdetection", "mmdetection", mmdetection.to_unified,
    ),
    (
        ("backbone.body.", "rpn.head.", "roi_heads.mask_predictor.", "head.classification_head."),
        "torchvision", "torchvision", torchvision.to_unified,
    ),
    (
        ("res2_0_branch", "conv_rpn_", "fpn_inner_", "retnet_", "conv1_w"),
        "detectron2", "Detectron (Caffe2 blobs)", caffe2.to_unified,
    ),
)  # fmt: skip
_OTHERS = {
    "layer1.0.": "a classification ResNet, without detection heads",
    "stem.conv1.": "a classification ResNet of detectron2, without detection heads",
    "features.": "a classification network, without detection heads",
    "model.0.": "a YOLO",
    "transformer.": "a DETR",
    "image_encoder.": "a Segment Anything model",
    "backbone.features.": "an SSD",
    "state_dict.": "a state dict inside another",
}


def identify(native: dict[str, Tensor]) -> Weights:
    """What a family's state dict is.

    Raises:
        ValueError: not one of the families', or a network that is not supported, by its name.
    """
    family, layout, to_unified = _layout_of(list(native))
    state = {name: _float32(name, tensor) for name, tensor in to_unified(native).items()}
    architecture = architecture_of(state)
    classes, class_layout = class_rows(state)
    if family == "mmdetection":
        layout += " 1.x" if mmdetection.is_legacy(native) else " 2.0 or later"
    expected = BACKGROUND_FIRST if layout in ("torchvision", "mmdetection 1.x") else BACKGROUND_LAST
    if class_layout != expected:
        raise ValueError(f"the rows of its heads are not those of {layout}")
    return Weights(family, layout, architecture, classes, class_layout, has_counters(native), state)


def _layout_of(names: list[str]) -> tuple[Family, str, _ToUnified]:
    for starts, family, layout, to_unified in _LAYOUTS:
        if any(name.startswith(starts) for name in names):
            return family, layout, to_unified
    known = next(
        (what for start, what in _OTHERS.items() if any(n.startswith(start) for n in names)), None
    )
    found = known or (f"names such as {names[0][:60]!r}" if names else "nothing")
    raise ValueError(
        f"holds {found}; expected a Mask R-CNN of torchvision, detectron2 or mmdetection"
    )


def _float32(name: str, tensor: Tensor) -> Tensor:
    """Weights in half or double precision as the network has them."""
    if not tensor.is_floating_point():
        raise ValueError(f"{name} holds {tensor.dtype}, expected floats")
    return tensor.to(torch.float32)
