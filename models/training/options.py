"""How losses are computed, as data: the families' variants, and what trades memory for time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

BoxKind = Literal["smooth_l1", "giou", "diou", "ciou"]
Denominator = Literal["sampled", "configured"]


@dataclass(frozen=True)
class LossConfig:
    """The variants in which the families differ.

    Attributes:
        rpn_smooth_l1_beta: of the RPN's box loss: where the square turns into the absolute value. 0 = L1.
        box_smooth_l1_beta: likewise of the box head.
        rpn_denominator: what both RPN losses are divided by: the anchors that were `sampled` (torchvision,
            mmdetection), or as many as are asked for, `configured` (detectron2); they differ in small pictures alone.
        box_kind: of the box head: on deltas (`smooth_l1`), or on boxes (`giou`, `diou`, `ciou`).

    Source: torchvision/models/detection/rpn.py and roi_heads.py (beta 1/9); detectron2/config/defaults.py
    (SMOOTH_L1_BETA 0, LOSS_NORM in proposal_generator/rpn.py); mmdet configs/_base_/models/mask-rcnn_r50_fpn.py
    (L1Loss).
    """

    rpn_smooth_l1_beta: float = 1 / 9
    box_smooth_l1_beta: float = 1 / 9
    rpn_denominator: Denominator = "sampled"
    box_kind: BoxKind = "smooth_l1"

    def __post_init__(self) -> None:
        if min(self.rpn_smooth_l1_beta, self.box_smooth_l1_beta) < 0:
            raise ValueError("loss: a smooth_l1_beta is below 0; expected 0 (L1) or more")
        if self.box_kind not in get_args(BoxKind):
            known = ", ".join(get_args(BoxKind))
            raise ValueError(f"loss: box_kind {self.box_kind!r}, expected one of {known}")
        if self.rpn_denominator not in get_args(Denominator):
            raise ValueError(
                f"loss: rpn_denominator {self.rpn_denominator!r}, expected sampled or configured"
            )


DETECTRON2_LOSSES = LossConfig(0.0, 0.0, rpn_denominator="configured")
MMDETECTION_LOSSES = LossConfig(0.0, 0.0)


@dataclass(frozen=True)
class TrainingOptions:
    """What `prepare_for_training` chose; a network has the defaults until then.

    Attributes:
        losses: the variant.
        checkpoint_activations: backbone and pyramid are computed again in the backward pass, not kept.
        compile: Inductor compiles the trunk.
    """

    losses: LossConfig = field(default_factory=LossConfig)
    checkpoint_activations: bool = False
    compile: bool = False
