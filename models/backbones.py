"""Feature extractors with a feature pyramid; module names are torchvision's, so its state dicts load strict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import mobilenet_v3_large
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.ops.misc import FrozenBatchNorm2d

from segcli.models.architectures import Architecture
from segcli.models.conventions import Numerics

MakeNorm = Callable[[int], nn.Module]
# block, blocks per stage, groups of the 3×3 convolutions, their width per group (torchvision/models/resnet.py)
_RESNETS: dict[str, tuple[type[nn.Module], tuple[int, int, int, int], int, int]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2), 1, 64),
    "resnet34": (BasicBlock, (3, 4, 6, 3), 1, 64),
    "resnet50": (Bottleneck, (3, 4, 6, 3), 1, 64),
    "resnet101": (Bottleneck, (3, 4, 23, 3), 1, 64),
    "resnext101_32x4d": (Bottleneck, (3, 4, 23, 3), 32, 4),
    "resnext101_32x8d": (Bottleneck, (3, 4, 23, 3), 32, 8),
    "resnext101_64x4d": (Bottleneck, (3, 4, 23, 3), 64, 4),
}
_MOBILE_STAGES = {"3": "0", "6": "1", "12": "2", "16": "3"}  # the last of strides 4, 8, 16, 32
_MOBILE_CHANNELS = [24, 40, 112, 960]
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


class FixedBatchNorm2d(FrozenBatchNorm2d):  # type: ignore[misc]  # torchvision has no types
    """torchvision's frozen batch norm by torch's own operator, as detectron2 and mmdetection run theirs.

    torchvision's is x · scale + bias; the last bits differ.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W), the same shape."""
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


def build_backbone(architecture: Architecture, numerics: Numerics) -> BackboneWithFPN:
    """The backbone of `architecture` with its pyramid P2 … P6, random weights."""
    norm = _body_norm(architecture, numerics)
    stages = _STAGES
    if architecture.backbone in _RESNETS:
        block, blocks, groups, width = _RESNETS[architecture.backbone]
        body: Any = ResNet(
            block, list(blocks), groups=groups, width_per_group=width, norm_layer=norm
        )
        channels = [64 * 2**i * body.layer1[0].expansion for i in range(4)]
        if numerics.stride_in_1x1:
            _stride_first(body)
    elif architecture.backbone == "mobilenet_v3_large":
        body = mobilenet_v3_large(norm_layer=norm).features
        stages, channels = _MOBILE_STAGES, _MOBILE_CHANNELS
    else:
        body = NanoBody()
        channels = list(_NANO_WIDTHS)
    pyramid_norm = head_norm(architecture)
    return BackboneWithFPN(
        body, stages, channels, architecture.fpn_channels, norm_layer=pyramid_norm
    )


def _stride_first(body: nn.Module) -> None:
    """Bottlenecks as in He et al. 2015 (MSRA's weights): the first 1×1 convolution halves resolution, not the 3×3."""
    for block in body.modules():
        if isinstance(block, Bottleneck):
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride


def _body_norm(architecture: Architecture, numerics: Numerics) -> MakeNorm:
    if architecture.norm == "batch":
        return nn.BatchNorm2d
    if architecture.norm == "group":
        return group_norm
    frozen: MakeNorm = FixedBatchNorm2d if numerics.bn_form == "batch_norm" else FrozenBatchNorm2d
    return frozen


def head_norm(architecture: Architecture) -> MakeNorm | None:
    """The norm of pyramid and heads; None where they have none."""
    norms: dict[str, MakeNorm] = {"group": group_norm, "batch": nn.BatchNorm2d}
    return norms.get(architecture.norm)


def group_norm(channels: int) -> nn.Module:
    """Group normalisation (Wu & He 2018): statistics of one picture, so neither batch size nor batch mates matter."""
    return nn.GroupNorm(_GROUPS, channels)


def set_bn_eps(module: nn.Module, eps: float) -> None:
    """Set eps of every batch norm; it is part of the conventions, not of the state dict."""
    for child in module.modules():
        if isinstance(child, FrozenBatchNorm2d | nn.BatchNorm2d):
            child.eps = eps
