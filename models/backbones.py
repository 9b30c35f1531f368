"""Feature extractors with a feature pyramid; module names are torchvision's, so its state dicts load strict."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.resnet import BasicBlock, resnet50
from torchvision.ops.misc import FrozenBatchNorm2d

from segcli.models.architectures import Architecture

_STAGES = {"layer1": "0", "layer2": "1", "layer3": "2", "layer4": "3"}
_NANO_WIDTHS = (32, 64, 128, 256)


class NanoBody(nn.Module):
    """A ResNet-18 of half the width (He et al. 2015, table 1) with a stem of two 3×3 convolutions.

    About 2.8 M parameters. Strides 4, 8, 16, 32 at `layer1` … `layer4`.
    """

    def __init__(self) -> None:
        super().__init__()
        half = _NANO_WIDTHS[0] // 2
        self.conv1 = nn.Sequential(
            nn.Conv2d(3, half, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
            nn.Conv2d(half, _NANO_WIDTHS[0], 3, stride=2, padding=1, bias=False),
        )
        self.bn1 = nn.BatchNorm2d(_NANO_WIDTHS[0])
        self.relu = nn.ReLU(inplace=True)
        inputs = (_NANO_WIDTHS[0], *_NANO_WIDTHS)
        for stage, (before, width) in enumerate(zip(inputs[:-1], _NANO_WIDTHS, strict=True)):
            setattr(self, f"layer{stage + 1}", _stage(before, width, stride=1 if stage == 0 else 2))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """The last stage's features; `BackboneWithFPN` taps the stages by name."""
        x = self.relu(self.bn1(self.conv1(x)))
        for stage in _STAGES:
            x = getattr(self, stage)(x)
        return x


def _stage(before: int, width: int, *, stride: int) -> nn.Sequential:
    """Two residual blocks; the first changes width and resolution."""
    shortcut = None
    if stride != 1 or before != width:
        shortcut = nn.Sequential(
            nn.Conv2d(before, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width)
        )
    return nn.Sequential(BasicBlock(before, width, stride, shortcut), BasicBlock(width, width))


def build_backbone(architecture: Architecture) -> BackboneWithFPN:
    """The backbone of `architecture` with its pyramid P2 … P6, random weights."""
    if architecture.backbone == "resnet50":
        norm = FrozenBatchNorm2d if architecture.frozen_batch_norm else nn.BatchNorm2d
        body: nn.Module = resnet50(weights=None, norm_layer=norm)
        channels = [256, 512, 1024, 2048]
    else:
        body = NanoBody()
        channels = list(_NANO_WIDTHS)
    return BackboneWithFPN(body, _STAGES, channels, architecture.fpn_channels)


def set_bn_eps(module: nn.Module, eps: float) -> None:
    """Set eps of every batch norm; it is part of the conventions, not of the state dict."""
    for child in module.modules():
        if isinstance(child, FrozenBatchNorm2d | nn.BatchNorm2d):
            child.eps = eps
