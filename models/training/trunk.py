"""Backbone and feature pyramid for training: torchvision's modules, run with their norms folded."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torchvision.models.mobilenetv3 import InvertedResidual
from torchvision.models.resnet import BasicBlock, Bottleneck

from segcli.models.training.units import convolve, run_block

Part = Callable[[Any, Tensor], Tensor]
Run = Callable[[Part, Any, Tensor], Tensor]


def pyramid(backbone: Any, images: Tensor, *, checkpointed: bool = False) -> list[Tensor]:
    """P2 … P6 of normalised pictures.

    Layers without a gradient of their own at the network's beginning keep nothing for the backward pass.

    Args:
        backbone: torchvision's `BackboneWithFPN` over one of `segcli.models.backbones`.
        images: float32 (N, 3, H, W).
        checkpointed: blocks and pyramid are computed again in the backward pass.

    Returns:
        Per level (N, C, H / stride, W / stride), channels last, in autocast's type where it is on.
    """
    images = images.contiguous(memory_format=torch.channels_last)
    run = _again if checkpointed else _once
    body = backbone.body
    levels = (_resnet if hasattr(body, "conv1") else _mobile)(body, images, run)
    if checkpointed:
        found: list[Tensor] = checkpoint(_fpn, backbone.fpn, *levels, use_reentrant=False)
        return found
    return _fpn(backbone.fpn, *levels)


@cache
def _compiler() -> Callable[[Any, Tensor], list[Tensor]]:
    from torch._dynamo import config

    # beyond the limit torch goes on uncompiled, which rounds differently; batches with unreadable pictures are smaller
    config.recompile_limit = max(config.recompile_limit, 256)
    return torch.compile(_by_modules, dynamic=False)


def compiled_pyramid(backbone: Any, images: Tensor) -> list[Tensor]:
    """As `pyramid`, by Inductor, which fuses norms, sums and ReLUs itself; the first call of each size compiles."""
    return _compiler()(backbone, images.contiguous(memory_format=torch.channels_last))


def _by_modules(backbone: Any, images: Tensor) -> list[Tensor]:
    return list(backbone(images).values())


def _once(function: Part, part: nn.Module, x: Tensor) -> Tensor:
    return function(part, x)


def _again(function: Part, part: nn.Module, x: Tensor) -> Tensor:
    wanted = x.requires_grad or any(p.requires_grad for p in part.parameters())
    if not (wanted and torch.is_grad_enabled()):
        return function(part, x)
    out: Tensor = checkpoint(function, part, x, use_reentrant=False)
    return out


def _resnet(body: Any, x: Tensor, run: Run) -> list[Tensor]:
    """C2 … C5 of torchvision's residual networks and ours."""
    x, levels = _stem(body, x), []
    for stage in range(1, 5):
        for block in getattr(body, f"layer{stage}"):
            x = run(_block, block, x)
        levels.append(x)
    return levels


def _mobile(body: Any, x: Tensor, run: Run) -> list[Tensor]:
    """C2 … C5 of torchvision's MobileNet-V3 (Howard et al. 2019, table 1)."""
    levels = []
    for name, block in body.items():
        x = run(_inverted if isinstance(block, InvertedResidual) else run_block, block, x)
        if name in body.return_layers:
            levels.append(x)
    return levels


def _inverted(block: Any, x: Tensor) -> Tensor:
    """An inverted residual block (figure 4)."""
    *before, last = block.block
    inner = x
    for part in before:
        inner = run_block(part, inner)
    return run_block(last, inner, x if block.use_res_connect else None)


def _stem(body: Any, x: Tensor) -> Tensor:
    """The first convolutions: one and a pooling (ResNet), or a sequence that ends in one (nano)."""
    if isinstance(body.conv1, nn.Sequential):
        first, norm, _, last = list[Any](body.conv1)
        return convolve(convolve(x, first, norm, relu=True), last, body.bn1, relu=True)
    pooled: Tensor = body.maxpool(convolve(x, body.conv1, body.bn1, relu=True))
    return pooled


def _block(block: Any, x: Tensor) -> Tensor:
    """A residual block (He et al. 2015, figure 5) of torchvision's kinds."""
    shortcut = x if block.downsample is None else convolve(x, *block.downsample)
    inner = convolve(x, block.conv1, block.bn1, relu=True)
    if isinstance(block, BasicBlock):
        return convolve(inner, block.conv2, block.bn2, shortcut, relu=True)
    if not isinstance(block, Bottleneck):
        raise TypeError(f"expected a residual block, found {type(block).__name__}")
    inner = convolve(inner, block.conv2, block.bn2, relu=True)
    return convolve(inner, block.conv3, block.bn3, shortcut, relu=True)


def _fpn(fpn: Any, *levels: Tensor) -> list[Tensor]:
    """Feature pyramid (Lin et al. 2017, section 3); C2 … C5 to P2 … P6."""
    top = run_block(fpn.inner_blocks[-1], levels[-1])
    out = [run_block(fpn.layer_blocks[-1], top)]
    for i in range(len(levels) - 2, -1, -1):
        larger = F.interpolate(top, size=levels[i].shape[-2:], mode="nearest")
        top = run_block(fpn.inner_blocks[i], levels[i], larger)
        out.insert(0, run_block(fpn.layer_blocks[i], top))
    return [*out, F.max_pool2d(out[-1], kernel_size=1, stride=2)]
