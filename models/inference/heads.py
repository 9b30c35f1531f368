"""Box and mask head at inference: torchvision's arithmetic, with the work left out that no detection needs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import boxes as box_ops
from torchvision.ops import nms

from segcli.models.inference.trunk import unit_of
from segcli.models.inference.units import LinearUnit

_SMALLEST = 1e-2  # pixels; torchvision's `postprocess_detections`
_MASKS_AT_ONCE = 128  # bounds memory where pictures have hundreds of objects

Found = tuple[Tensor, Tensor, Tensor]


class BoxHead(nn.Module):
    """Two fully connected layers, class scores and box deltas.

    Args:
        heads: weights are copied.
    """

    def __init__(self, heads: RoIHeads) -> None:
        super().__init__()
        first, channels = heads.box_head.fc6, heads.mask_head[0][0].in_channels
        side = round((first.in_features // channels) ** 0.5)
        # pooled features lie channels last: with the weights' columns in that order, flattening them copies nothing
        weight = first.weight.detach().view(-1, channels, side, side).permute(0, 2, 3, 1)
        self.first = LinearUnit(weight.reshape(len(weight), -1), first.bias, relu=True)
        second = heads.box_head.fc7
        self.second = LinearUnit(second.weight, second.bias, relu=True)
        both = (heads.box_predictor.cls_score, heads.box_predictor.bbox_pred)
        self.classes = both[0].out_features
        self.last = LinearUnit(
            torch.cat([m.weight for m in both]), torch.cat([m.bias for m in both])
        )

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled features (R, C, s, s) to float32 class logits (R, K + 1) and deltas (R, (K + 1) · 4)."""
        rows = pooled.permute(0, 2, 3, 1).reshape(len(pooled), -1)
        found = self.last(self.second(self.first(rows))).float()
        return found[:, : self.classes], found[:, self.classes :]


class MaskHead(nn.Module):
    """Convolutions, one upsampling by two, and the mask of the one class that each RoI has.

    Args:
        heads: weights are copied.
    """

    def __init__(self, heads: RoIHeads) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(*(unit_of(block) for block in heads.mask_head))
        up, logits = heads.mask_predictor.conv5_mask, heads.mask_predictor.mask_fcn_logits
        if up.kernel_size != (2, 2) or up.stride != (2, 2):
            raise ValueError("expected an upsampling of kernel 2 and stride 2")
        # windows do not overlap, so the transposed convolution is one matrix product per cell
        weight = up.weight.detach().permute(2, 3, 1, 0).reshape(-1, up.in_channels)
        self.up = LinearUnit(weight, up.bias.detach().repeat(4), relu=True)
        self.logit_weight = nn.Parameter(logits.weight.detach()[:, :, 0, 0].clone(), False)
        self.logit_bias = nn.Parameter(logits.bias.detach().clone(), False)

    def forward(self, pooled: Tensor, labels: Tensor) -> Tensor:
        """Probability of each RoI's own class.

        Args:
            pooled: (R, C, s, s).
            labels: int64 (R,), from 1.

        Returns:
            float32 (R, 2 · s, 2 · s).
        """
        R, _, side, _ = pooled.shape
        cells = self.convolutions(pooled).permute(0, 2, 3, 1).reshape(R * side * side, -1)
        values = self.up(cells).view(R, side * side * 4, -1)
        weight = self.logit_weight[labels].to(values.dtype)
        logits = torch.bmm(values, weight[:, :, None])[:, :, 0].float()
        logits = logits + self.logit_bias[labels].float()[:, None]
        spread = logits.view(R, side, side, 2, 2).permute(0, 1, 3, 2, 4)
        return torch.sigmoid(spread.reshape(R, 2 * side, 2 * side))


class BoxSelector:
    """From logits and deltas to detections: torchvision's `postprocess_detections`.

    That decodes a box per proposal and class; here only those whose score counts.

    Args:
        heads: box coder and thresholds are taken from it.
    """

    def __init__(self, heads: RoIHeads) -> None:
        self._decode = heads.box_coder.decode_single
        self._overlap = heads.nms_thresh

    def __call__(
        self,
        logits: Tensor,
        deltas: Tensor,
        proposals: Tensor,
        size: tuple[int, int],
        *,
        score: float,
        most: int,
    ) -> Found:
        """Of one picture.

        Args:
            logits: float32 (R, K + 1).
            deltas: float32 (R, (K + 1) · 4).
            proposals: float32 (R, 4).
            size: (h, w) of the valid area.
            score: lowest score, exclusive.
            most: detections kept.

        Returns:
            Boxes float32 (D, 4), scores float32 (D,), labels int64 (D,) from 1; best first.
        """
        scores = F.softmax(logits, -1)
        rows, labels = torch.where(scores[:, 1:] > score)
        labels = labels + 1
        scores = scores[rows, labels]
        own = deltas.view(len(deltas), logits.shape[1], 4)[rows, labels]
        boxes = box_ops.clip_boxes_to_image(self._decode(own, proposals[rows]), size)
        kept = torch.where((boxes[:, 2:] - boxes[:, :2] >= _SMALLEST).all(1))[0]
        boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
        kept = nms_by_class(boxes, scores, labels, self._overlap)[:most]
        return boxes[kept], scores[kept], labels[kept]


def nms_by_class(boxes: Tensor, scores: Tensor, labels: Tensor, overlap: float) -> Tensor:
    """Rows that are kept, best first; exact, where `batched_nms` shifts small sets by class and rounds."""
    order = scores.sort(descending=True, stable=True)[1]
    keep = torch.zeros_like(scores, dtype=torch.bool)
    for label in torch.unique(labels):
        rows = torch.where(labels == label)[0]
        keep[rows[nms(boxes[rows], scores[rows], overlap)]] = True
    return order[keep[order]]


def in_chunks(head: MaskHead, pooled: Tensor, labels: Tensor) -> Tensor:
    """The mask head over any number of RoIs in bounded memory; see `MaskHead.forward`."""
    if len(labels) == 0:
        return pooled.new_zeros((0, 2 * pooled.shape[2], 2 * pooled.shape[3]), dtype=torch.float32)
    pieces = zip(
        torch.split(pooled, _MASKS_AT_ONCE), torch.split(labels, _MASKS_AT_ONCE), strict=True
    )
    return torch.cat([head(p, k) for p, k in pieces])
