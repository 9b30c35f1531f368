"""Feature extractors with a feature pyramid; module names are torchvision's, so its state dicts load strict."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.resnet import BasicBlock, resnet50
from torchvision.ops.misc import FrozenBatchNorm2d

from segcli.models.architectures import Architecture

_STAGES = {"layer1": "0", "layer2": "1", "layer3": "2", "layer4": "3"}
_NANO_WIDTHS = (48, 96, 160, 256)
_GROUPS = 8


class NanoBody(nn.Module):
    """A ResNet-18 (He et al. 2015, table 1) of smaller width, with a stem of two 3×3 convolutions.

    About 3.4 M parameters; strides 4, 8, 16, 32 at `layer1` … `layer4`. It has no forward of its own:
    `BackboneWithFPN` runs its parts one after another and taps the stages.
    """

    def __init__(self) -> None:
        super().__init__()
        half = _NANO_WIDTHS[0] // 2
        self.conv1 = nn.Sequential(
            nn.Conv2d(3, half, 3, stride=2, padding=1, bias=False),
            group_norm(half),
            nn.ReLU(inplace=True),
            nn.Conv2d(half, _NANO_WIDTHS[0], 3, stride=2, padding=1, bias=False),
        )
        self.bn1 = group_norm(_NANO_WIDTHS[0])
        self.relu = nn.ReLU(inplace=True)
        inputs = (_NANO_WIDTHS[0], *_NANO_WIDTHS)
        for stage, (before, width) in enumerate(zip(inputs[:-1], _NANO_WIDTHS, strict=True)):
            setattr(self, f"layer{stage + 1}", _stage(before, width, stride=1 if stage == 0 else 2))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _stage(before: int, width: int, *, stride: int) -> nn.Sequential:
    """Two residual blocks; the first changes width and resolution."""
    shortcut = None
    if stride != 1 or before != width:
        shortcut = nn.Sequential(
            nn.Conv2d(before, width, 1, stride=stride, bias=False), group_norm(width)
        )
    first = BasicBlock(before, width, stride, shortcut, norm_layer=group_norm)
    return nn.Sequential(first, BasicBlock(width, width, norm_layer=group_norm))


def build_backbone(architecture: Architecture) -> BackboneWithFPN:
    """The backbone of `architecture` with its pyramid P2 … P6, random weights."""
    if architecture.backbone == "resnet50":
        body: nn.Module = resnet50(weights=None, norm_layer=FrozenBatchNorm2d)
        channels = [256, 512, 1024, 2048]
    else:
        body = NanoBody()
        channels = list(_NANO_WIDTHS)
    norm = head_norm(architecture)
    return BackboneWithFPN(body, _STAGES, channels, architecture.fpn_channels, norm_layer=norm)


def head_norm(architecture: Architecture) -> Callable[[int], nn.Module] | None:
    """The norm of pyramid and mask head; None where they have none."""
    return group_norm if architecture.norm == "group" else None


def group_norm(channels: int) -> nn.Module:
    """Group normalisation (Wu & He 2018): statistics of one picture, so neither batch size nor batch mates matter."""
    return nn.GroupNorm(_GROUPS, channels)


def set_bn_eps(module: nn.Module, eps: float) -> None:
    """Set eps of every batch norm; it is part of the conventions, not of the state dict."""
    for child in module.modules():
        if isinstance(child, FrozenBatchNorm2d | nn.BatchNorm2d):
            child.eps = eps
