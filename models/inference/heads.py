"""Box and mask head at inference: the network's arithmetic, with the work left out that no detection needs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, TwoMLPHead

from segcli.models.boxes import nms_by_class
from segcli.models.inference.bodies import unit_of
from segcli.models.inference.units import ConvUnit, LinearUnit
from segcli.models.postprocess import Found, select_detections
from segcli.models.roi_heads import RoIHeads

__all__ = ["BoxHead", "BoxSelector", "Found", "MaskHead", "in_chunks", "nms_by_class"]

_MASKS_AT_ONCE = 128  # bounds memory where pictures have hundreds of objects


class BoxHead(nn.Module):
    """Fully connected layers, class scores and box deltas; in some networks convolutions before them.

    Args:
        heads: weights are copied.
    """

    def __init__(self, heads: RoIHeads) -> None:
        super().__init__()
        convolutions, linear = _parts_of(heads.box_head)
        self.convolutions = nn.Sequential(*convolutions)
        first, channels = linear[0], heads.mask_head[0][0].in_channels
        side = round((first.in_features // channels) ** 0.5)
        # pooled features lie channels last: with the weights' columns in that order, flattening them copies nothing
        weight = first.weight.detach().view(-1, channels, side, side).permute(0, 2, 3, 1)
        self.linear = nn.Sequential(
            LinearUnit(weight.reshape(len(weight), -1), first.bias, relu=True),
            *(LinearUnit(layer.weight, layer.bias, relu=True) for layer in linear[1:]),
        )
        both = (heads.box_predictor.cls_score, heads.box_predictor.bbox_pred)
        self.classes = both[0].out_features
        self.last = LinearUnit(
            torch.cat([m.weight for m in both]), torch.cat([m.bias for m in both])
        )

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled features (R, C, s, s) to float32 class logits (R, K + 1) and deltas (R, 4 · groups)."""
        rows = self.convolutions(pooled).permute(0, 2, 3, 1).flatten(1)
        found = self.last(self.linear(rows)).float()
        return found[:, : self.classes], found[:, self.classes :]


def _parts_of(head: nn.Module) -> tuple[list[ConvUnit], list[nn.Linear]]:
    """Convolutions and fully connected layers of torchvision's box heads; all end in a ReLU."""
    if isinstance(head, TwoMLPHead):
        return [], [head.fc6, head.fc7]
    if isinstance(head, FastRCNNConvFCHead):
        blocks = [unit_of(part) for part in head if isinstance(part, nn.Sequential)]
        return blocks, [part for part in head if isinstance(part, nn.Linear)]
    raise TypeError(f"expected a box head of torchvision's, found {type(head).__name__}")


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
        self._layout = heads.rules.numerics.class_layout

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
        own = self._layout.mask_row(labels - 1)
        weight = self.logit_weight[own].to(values.dtype)
        logits = torch.bmm(values, weight[:, :, None])[:, :, 0].float()
        logits = logits + self.logit_bias[own].float()[:, None]
        spread = logits.view(R, side, side, 2, 2).permute(0, 1, 3, 2, 4)
        return torch.sigmoid(spread.reshape(R, 2 * side, 2 * side))


class BoxSelector:
    """From logits and deltas to detections, see `segcli.models.postprocess`.

    Args:
        heads: conventions are taken from it.
    """

    def __init__(self, heads: RoIHeads) -> None:
        self._rules = heads.rules

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
            deltas: float32 (R, 4 · groups).
            proposals: float32 (R, 4).
            size: (h, w) of the valid area.
            score: lowest score, exclusive.
            most: detections kept.
        """
        return select_detections(
            logits, deltas, proposals, size, self._rules, score=score, most=most
        )


def in_chunks(head: MaskHead, pooled: Tensor, labels: Tensor) -> Tensor:
    """The mask head over any number of RoIs in bounded memory; see `MaskHead.forward`."""
    if len(labels) == 0:
        return pooled.new_zeros((0, 2 * pooled.shape[2], 2 * pooled.shape[3]), dtype=torch.float32)
    pieces = zip(
        torch.split(pooled, _MASKS_AT_ONCE), torch.split(labels, _MASKS_AT_ONCE), strict=True
    )
    return torch.cat([head(p, k) for p, k in pieces])
