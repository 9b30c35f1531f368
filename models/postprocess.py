"""From class scores and box deltas to detections, and from the network's frame to the picture's, by the conventions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from segcli.models.boxes import DeltaCoder, batched_nms, clipped, wide_enough
from segcli.models.conventions import Numerics, Postprocess

Found = tuple[Tensor, Tensor, Tensor]
"""Boxes float32 (D, 4), scores float32 (D,), labels int64 (D,) from 1 whatever the class layout; best first."""


class SelectionRules(NamedTuple):
    """What the choice of detections depends on besides scores and boxes.

    Attributes:
        classes: K, foreground classes.
        numerics: class layout, NMS mode, whether rows that are not finite are dropped.
        postprocess: smallest box, overlap.
        coder: decodes the deltas.
    """

    classes: int
    numerics: Numerics
    postprocess: Postprocess
    coder: DeltaCoder


def select_detections(
    logits: Tensor,
    deltas: Tensor,
    proposals: Tensor,
    size: tuple[int, int],
    rules: SelectionRules,
    *,
    score: float,
    most: int,
) -> Found:
    """Detections of one picture. Only pairs of proposal and class whose score counts are decoded.

    Args:
        logits: float32 (R, K + 1), rows of the class layout.
        deltas: float32 (R, 4 · groups), likewise.
        proposals: float32 (R, 4).
        size: (h, w) of the valid area.
        rules: conventions.
        score: lowest score, exclusive.
        most: detections kept.

    Source: torchvision/models/detection/roi_heads.py, `postprocess_detections`; detectron2/modeling/roi_heads/
    fast_rcnn.py, `fast_rcnn_inference_single_image`; mmdet/models/layers/bbox_nms.py, `multiclass_nms`.
    """
    layout, post = rules.numerics.class_layout, rules.postprocess
    scores = F.softmax(logits, -1)
    wanted = scores[:, layout.score_classes(rules.classes)] > score
    if rules.numerics.drop_non_finite:
        wanted &= (scores.isfinite().all(1) & deltas.isfinite().all(1))[:, None]
    rows, index = torch.where(wanted)
    group = layout.score_row(index)
    scores = scores[rows, group]
    own = deltas.view(len(deltas), layout.box_groups(rules.classes), 4)[
        rows, layout.box_group(index)
    ]
    decoded = rules.coder.decode_single(own, proposals[rows])
    boxes = clipped(decoded, size)
    kept = torch.ones_like(scores, dtype=torch.bool)
    if rules.numerics.drop_non_finite:
        kept &= decoded.isfinite().all(1)
    if post.box_min_size > 0:
        kept &= wide_enough(boxes, post.box_min_size)
    boxes, scores, index, group = boxes[kept], scores[kept], index[kept], group[kept]
    # groups by row of `cls_score`, since offsets between groups round as their numbers are
    chosen = batched_nms(boxes, scores, group, post.nms_iou, rules.numerics.nms_mode)[:most]
    return boxes[chosen], scores[chosen], index[chosen] + 1


def to_original(
    boxes: Tensor, size: tuple[int, int], original: tuple[int, int], postprocess: Postprocess
) -> tuple[Tensor, Tensor]:
    """Boxes in the frame of the original picture, and which of them are left.

    Args:
        boxes: float32 (D, 4), xyxy in pixels of the resized picture.
        size: its (h, w).
        original: (H, W) of the original picture.
        postprocess: how boxes are scaled, and whether they are clipped and dropped.

    Returns:
        float32 (D, 4), and bool (D,): false where the conventions drop an empty box.

    Source: torchvision/models/detection/transform.py, `resize_boxes`; detectron2/modeling/postprocessing.py,
    `detector_postprocess`; mmdet/models/roi_heads/mask_heads/fcn_mask_head.py, `_predict_by_feat_single`.
    """
    over = size if postprocess.box_rescale == "multiply" else original
    under = original if postprocess.box_rescale == "multiply" else size
    sides = torch.tensor([under[1] / over[1], under[0] / over[0]] * 2, dtype=torch.float32)
    sides = sides.to(boxes.device)
    boxes = boxes * sides if postprocess.box_rescale == "multiply" else boxes / sides
    if postprocess.clip_rescaled:
        boxes = clipped(boxes, original)
    left = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    if postprocess.drop_empty:
        left = wide_enough(boxes, 0.0, inclusive=False)
    return boxes, left
