"""Backbone, feature pyramid and RPN head for inference: most of the arithmetic, and fixed once the input's size is."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segcli.models.inference.bodies import body_of, unit_of
from segcli.models.inference.units import ConvUnit, to_type
from segcli.models.mask_rcnn import MaskRCNN


class TrunkOutput(NamedTuple):
    """What the trunk gives for N pictures of (H, W) input pixels.

    Attributes:
        features: P2 … P5, each (N, C, H / stride, W / stride), in the trunk's type, channels last.
        logits: objectness of P2 … P6, each float32 (N, A, h, w).
        deltas: box deltas of P2 … P6, each float32 (N, 4 · A, h, w).
    """

    features: list[Tensor]
    logits: list[Tensor]
    deltas: list[Tensor]


class Trunk(nn.Module):
    """The trunk of a `MaskRCNN` with its batch norms folded. Weights are copied; the network is not changed.

    `forward` takes and gives plain tensors, in a flat tuple, so that it can be traced, compiled and exported.

    Args:
        network: in evaluation mode.
    """

    def __init__(self, network: MaskRCNN) -> None:
        super().__init__()
        self.body = body_of(network.backbone.body)
        self.fpn = _Pyramid(network.backbone.fpn)
        self.head = _Head(network.rpn.head)
        self.dtype = torch.float32

    def to_type(self, dtype: torch.dtype) -> Trunk:
        """Compute in `dtype`; the statistics of group norms stay float32."""
        to_type(self, dtype)
        self.dtype = dtype
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Normalised pictures (N, 3, H, W) to 4 features, 5 logits and 5 deltas (see `TrunkOutput`)."""
        images = images.to(self.dtype)
        features = self.fpn(self.body(images))
        p6 = F.max_pool2d(features[-1], kernel_size=1, stride=2)
        found = [self.head(level) for level in (*features, p6)]
        return (*features, *(f[0] for f in found), *(f[1] for f in found))

    @staticmethod
    def grouped(flat: tuple[Tensor, ...] | list[Tensor]) -> TrunkOutput:
        """The flat tuple by name."""
        return TrunkOutput(list(flat[:4]), list(flat[4:9]), list(flat[9:14]))


class _Pyramid(nn.Module):
    """Feature pyramid (Lin et al. 2017, section 3); C2 … C5 to P2 … P5."""

    def __init__(self, fpn: Any) -> None:
        super().__init__()
        self.inner = nn.ModuleList(unit_of(block) for block in fpn.inner_blocks)
        self.outer = nn.ModuleList(unit_of(block) for block in fpn.layer_blocks)

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        top = self.inner[-1](levels[-1])
        out = [self.outer[-1](top)]
        for i in range(len(levels) - 2, -1, -1):
            larger = F.interpolate(top, size=levels[i].shape[-2:], mode="nearest")
            top = self.inner[i](levels[i], larger)
            out.insert(0, self.outer[i](top))
        return out


class _Head(nn.Module):
    """RPN head (Ren et al. 2015); logits and deltas leave it as float32, whatever it computes in."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.conv = nn.Sequential(*(unit_of(block) for block in head.conv))
        self.logits = ConvUnit(head.cls_logits)
        self.deltas = ConvUnit(head.bbox_pred)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.conv(x)
        return self.logits(x).float(), self.deltas(x).float()
