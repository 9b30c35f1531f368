"""Backbones at inference, made of units with their batch norms folded: residual networks and MobileNet-V3."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.mobilenetv3 import InvertedResidual
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops.misc import SqueezeExcitation

from segcli.models.inference.units import ConvUnit

_MOBILE_TAPS = (3, 6, 12, 16)


def body_of(body: Any) -> nn.Module:
    """The backbone's units, which give C2 … C5. Weights are copied."""
    return ResNetBody(body) if hasattr(body, "conv1") else MobileBody(body)


class ResNetBody(nn.Module):
    """A ResNet's stages, ours and torchvision's."""

    def __init__(self, body: Any) -> None:
        super().__init__()
        self.stem = _stem(body)
        self.pool = body.maxpool if hasattr(body, "maxpool") else nn.Identity()
        self.stages = nn.ModuleList(
            nn.Sequential(*(_Block(block) for block in getattr(body, f"layer{i}")))
            for i in range(1, 5)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Pictures (N, 3, H, W) to C2 … C5."""
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


class MobileBody(nn.Module):
    """MobileNet-V3-large (Howard et al. 2019, table 1), torchvision's `features`."""

    def __init__(self, body: Any) -> None:
        super().__init__()
        blocks = [
            _Inverted(block) if isinstance(block, InvertedResidual) else _activated(block)
            for block in body.values()
        ]
        starts = (0, *(tap + 1 for tap in _MOBILE_TAPS))
        self.stages = nn.ModuleList(
            nn.Sequential(*blocks[start:end]) for start, end in pairwise(starts)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Pictures (N, 3, H, W) to C2 … C5."""
        out = []
        for stage in self.stages:
            x = stage(x)
            out.append(x)
        return out


class _Inverted(nn.Module):
    """An inverted residual block with squeeze and excitation (figure 4)."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        *before, last = block.block
        self.before = nn.Sequential(
            *(_Excite(b) if isinstance(b, SqueezeExcitation) else _activated(b) for b in before)
        )
        self.last = unit_of(last)
        self.residual = block.use_res_connect

    def forward(self, x: Tensor) -> Tensor:
        inner = self.before(x)
        out: Tensor = self.last(inner, x) if self.residual else self.last(inner)
        return out


class _Excite(nn.Module):
    """Channels weighted by what the whole picture shows (Hu et al. 2018)."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.squeeze = ConvUnit(block.fc1, relu=True)
        self.excite = ConvUnit(block.fc2)

    def forward(self, x: Tensor) -> Tensor:
        mean = F.adaptive_avg_pool2d(x, 1)
        return F.hardsigmoid(self.excite(self.squeeze(mean))) * x


def _activated(block: Any) -> nn.Module:
    """A `Conv2dNormActivation` of torchvision whose activation may be a hard swish."""
    if isinstance(block[-1], nn.Hardswish):
        return nn.Sequential(unit_of(list(block)[:-1]), nn.Hardswish())
    return unit_of(block)


def unit_of(block: Any) -> ConvUnit:
    """One unit of a `Conv2dNormActivation` of torchvision (convolution, maybe a norm, maybe a ReLU)."""
    parts = list(block)
    relu = isinstance(parts[-1], nn.ReLU)
    if relu:
        parts.pop()
    convolution, *norm = parts
    return ConvUnit(convolution, norm[0] if norm else None, relu=relu)
