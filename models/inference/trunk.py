"""Backbone, feature pyramid and RPN head for inference: most of the arithmetic, and fixed once the input's size is."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, Bottleneck

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
        self.body = _Body(network.backbone.body)
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


class _Body(nn.Module):
    """A ResNet's stages; C2 … C5."""

    def __init__(self, body: Any) -> None:
        super().__init__()
        self.stem = _stem(body)
        self.pool = body.maxpool if hasattr(body, "maxpool") else nn.Identity()
        self.stages = nn.ModuleList(
            nn.Sequential(*(_Block(block) for block in getattr(body, f"layer{i}")))
            for i in range(1, 5)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.pool(self.stem(x))
        out = []
        for stage in self.stages:
            x = stage(x)
            out.append(x)
        return out


def _stem(body: Any) -> nn.Sequential:
    """The first convolutions: one (ResNet) or a sequence that ends in one (nano)."""
    if isinstance(body.conv1, nn.Sequential):
        first, norm, _, last = list[Any](body.conv1)
        return nn.Sequential(ConvUnit(first, norm, relu=True), ConvUnit(last, body.bn1, relu=True))
    return nn.Sequential(ConvUnit(body.conv1, body.bn1, relu=True))


class _Block(nn.Module):
    """A residual block (He et al. 2015, figure 5) of torchvision's kinds."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        if isinstance(block, Bottleneck):
            first = [
                ConvUnit(block.conv1, block.bn1, relu=True),
                ConvUnit(block.conv2, block.bn2, relu=True),
            ]
            self.last = ConvUnit(block.conv3, block.bn3, relu=True)
        elif isinstance(block, BasicBlock):
            first = [ConvUnit(block.conv1, block.bn1, relu=True)]
            self.last = ConvUnit(block.conv2, block.bn2, relu=True)
        else:
            raise TypeError(f"expected a residual block, found {type(block).__name__}")
        self.first = nn.Sequential(*first)
        self.shortcut = None if block.downsample is None else ConvUnit(*block.downsample)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.first(x)
        if self.shortcut is None:
            out: Tensor = self.last(inner, x)
        else:
            out = self.last(inner, self.shortcut(x))
        return out


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


def unit_of(block: Any) -> ConvUnit:
    """One unit of a `Conv2dNormActivation` of torchvision (convolution, maybe a norm, maybe a ReLU)."""
    parts = list(block)
    relu = isinstance(parts[-1], nn.ReLU)
    if relu:
        parts.pop()
    convolution, *norm = parts
    return ConvUnit(convolution, norm[0] if norm else None, relu=relu)
