"""Losses of the box and mask heads (Girshick 2015, section 2.3; He et al. 2017, section 3) on a sample of RoIs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection._utils import encode_boxes
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

from segcli.models.class_layout import ClassLayout
from segcli.models.training.matching import Thresholds, left_alone, match
from segcli.models.training.options import LossConfig
from segcli.models.training.proposals import Proposals
from segcli.models.training.sampling import IGNORED, draw

_OVERLAP_LOSSES = {
    "giou": generalized_box_iou_loss,
    "diou": distance_box_iou_loss,
    "ciou": complete_box_iou_loss,
}
_THINNEST = 0.01  # pixels


@dataclass(frozen=True, eq=False)
class RoIs:
    """Sampled RoIs, of one picture or of a batch.

    Attributes:
        boxes: float32 (R, 4), xyxy in input pixels.
        picture: int64 (R,).
        owner: int64 (R,), which object each overlaps most, counted through the batch.
        foreground: bool (R,).
        valid: bool (R,); on a CPU all are.
    """

    boxes: Tensor
    picture: Tensor
    owner: Tensor
    foreground: Tensor
    valid: Tensor

    def table(self, used: Tensor) -> Tensor:
        """float32 (R, 5) for RoIAlign; rows that are not `used` are padding and give zeros."""
        index = torch.where(used, self.picture, -1).to(self.boxes)
        return torch.cat((index[:, None], self.boxes), 1)

    def rows(self, rows: Tensor | slice) -> RoIs:
        """Some of them."""
        return RoIs(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    @staticmethod
    def of_batch(parts: list[RoIs], objects: list[int]) -> RoIs:
        """Those of all pictures.

        Args:
            parts: per picture, each as of a batch of one.
            objects: how many each picture has.
        """
        starts = [sum(objects[:i]) for i in range(len(parts))]
        return RoIs(
            boxes=torch.cat([p.boxes for p in parts]),
            picture=torch.cat([p.picture + i for i, p in enumerate(parts)]),
            owner=torch.cat([p.owner + s for s, p in zip(starts, parts, strict=True)]),
            foreground=torch.cat([p.foreground for p in parts]),
            valid=torch.cat([p.valid for p in parts]),
        )


def sample_rois(
    heads: Any,
    proposals: Proposals,
    objects: Tensor,
    others: Tensor | None,
    generator: torch.Generator,
) -> RoIs:
    """Draw from a picture's proposals and from the objects' own boxes; foreground comes first, in random order.

    Args:
        heads: thresholds and counts.
        proposals: of the picture.
        objects: float32 (G, 4).
        others: float32 (I, 4), objects that are not looked at; None = there are none.
        generator: its source of random numbers.
    """
    boxes = torch.cat((proposals.boxes, objects))
    known = torch.cat((proposals.valid, proposals.valid.new_ones(len(objects))))
    matcher, sampler = heads.proposal_matcher, heads.fg_bg_sampler
    thresholds = Thresholds(matcher.high_threshold, matcher.low_threshold, False)
    owner, kinds = match(boxes, objects, thresholds)
    kinds = left_alone(kinds, boxes, others, thresholds).masked_fill(~known, IGNORED)
    drawn = draw(kinds, sampler.batch_size_per_image, sampler.positive_fraction, generator)
    first = torch.zeros_like(drawn.rows)  # picture and object of a batch of one
    return RoIs(boxes[drawn.rows], first, owner[drawn.rows], drawn.foreground, drawn.valid)


def mask_rois(heads: Any, rois: RoIs) -> RoIs:
    """Of a picture's RoIs those that the mask loss looks at: its foreground, `heads.mask_rois` at most."""
    sampler = heads.fg_bg_sampler
    most = int(sampler.batch_size_per_image * sampler.positive_fraction)
    if heads.mask_rois is not None:
        most = min(most, heads.mask_rois)
    some = rois.rows(slice(most))
    return some.rows(some.foreground) if rois.boxes.device.type == "cpu" else some


def box_losses(
    found: tuple[Tensor, Tensor],
    rois: RoIs,
    labels: Tensor,
    objects: Tensor,
    allowed: Tensor | None,
    layout: ClassLayout,
    coder: Any,
    config: LossConfig,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of the class loss and of the box loss, and the number of RoIs.

    Args:
        found: logits (R, rows) and deltas (R, 4 · groups) of the box head.
        rois: R of them.
        labels: int64 (R,), 0-based class of each RoI's object; of background anything.
        objects: float32 (R, 4), box of each RoI's object; of background anything.
        allowed: bool (R, K + 1), background first: classes that the RoI's dataset knows; None = all.
        layout: which rows are which class.
        coder: torchvision's `BoxCoder`.
        config: variant.
    """
    logits, deltas = found[0].float(), found[1].float()
    classes, foreground = logits.shape[1] - 1, rois.foreground
    row = layout.score_row(labels).masked_fill(~foreground, layout.background_row(classes))
    if allowed is not None:
        logits = logits.masked_fill(~_by_row(allowed, layout), -torch.inf)
    each = F.cross_entropy(logits, row, reduction="none").masked_fill(~rois.valid, 0)
    group = layout.box_group(labels).masked_fill(~foreground, 0)
    # -1 is ambiguous where there are no rows
    own = deltas.view(len(deltas), deltas.shape[1] // 4, 4)
    own = own.gather(1, group[:, None, None].expand(-1, 1, 4))[:, 0]
    box = _box_loss(own, rois, objects, coder, config)
    return each.sum(), box, rois.valid.sum().float()


def _by_row(allowed: Tensor, layout: ClassLayout) -> Tensor:
    """Columns in the order of `cls_score`; the background is always allowed."""
    background = torch.ones_like(allowed[:, :1])
    parts = (background, allowed[:, 1:])
    return torch.cat(parts if layout.background == "first" else parts[::-1], 1)


def _box_loss(
    deltas: Tensor, rois: RoIs, objects: Tensor, coder: Any, config: LossConfig
) -> Tensor:
    """Sum over the foreground. Background is put where its loss and gradient are finite, and left out."""
    other = ~rois.foreground[:, None]
    deltas = deltas.masked_fill(other, 0)
    objects = torch.where(other, rois.boxes, objects)
    if config.box_kind == "smooth_l1":
        wanted = encode_boxes(objects, rois.boxes, coder.weights).masked_fill(other, 0)
        return F.smooth_l1_loss(deltas, wanted, beta=config.box_smooth_l1_beta, reduction="sum")
    boxes = _opened(coder.decode_single(deltas, rois.boxes))
    each: Tensor = _OVERLAP_LOSSES[config.box_kind](boxes, _opened(objects), reduction="none")
    return each.masked_fill(other[:, 0], 0).sum()


def _opened(boxes: Tensor) -> Tensor:
    """Boxes with sides of `_THINNEST` at least: of one without area the ratio of sides is 0 / 0 (ciou)."""
    return torch.cat((boxes[:, :2], torch.maximum(boxes[:, 2:], boxes[:, :2] + _THINNEST)), 1)


def mask_loss(logits: Tensor, targets: Tensor, foreground: Tensor) -> tuple[Tensor, Tensor]:
    """Sum over the RoIs of the mean binary cross-entropy of their pixels, and the number of RoIs.

    Args:
        logits: (P, 28, 28), of each RoI's own class.
        targets: float32 (P, 28, 28), 0..1.
        foreground: bool (P,); the others are padding.
    """
    each = F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none")
    total = each.mean((1, 2)).masked_fill(~foreground, 0).sum()
    return total, foreground.sum().float()
