"""A convolution with what follows it as one step of the graph: fixed batch norm, bias, shortcut and ReLU.

A batch norm with fixed statistics is a scale and a shift per channel; the scale goes into the weights, the shift into
the bias, and no pass over the features is left of it. On a CPU oneDNN adds the shortcut and takes the ReLU while it
writes. Kept for the backward pass are the input, the weights that were used, and the output where a ReLU ended it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops.misc import FrozenBatchNorm2d

from segcli.models.inference.units import can_pack

_NORMS = (FrozenBatchNorm2d, nn.BatchNorm2d, nn.GroupNorm, nn.Identity)


@dataclass(frozen=True)
class Geometry:
    """How a convolution moves over its input."""

    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int

    @classmethod
    def of(cls, convolution: nn.Conv2d) -> Geometry:
        """The module's.

        Raises:
            ValueError: padding that is not a number of zeros.
        """
        if convolution.padding_mode != "zeros" or isinstance(convolution.padding, str):
            raise ValueError(
                f"padding {convolution.padding!r} of mode {convolution.padding_mode!r}: expected numbers and zeros"
            )
        return cls(
            list(convolution.stride), list(convolution.padding),
            list(convolution.dilation), convolution.groups,
        )  # fmt: skip


def convolve(
    x: Tensor,
    convolution: nn.Conv2d,
    norm: nn.Module | None = None,
    shortcut: Tensor | None = None,
    *,
    relu: bool = False,
) -> Tensor:
    """Convolution, norm, sum with a shortcut, ReLU: what of these there is, in this order.

    Args:
        x: (N, C, H, W).
        convolution: its weights keep their gradient.
        norm: behind it; a batch norm with fixed statistics is folded.
        shortcut: is added before the ReLU.
        relu: whether a ReLU ends the unit.

    Returns:
        (N, C', H', W') in autocast's type where it is on, else in that of `x`.
    """
    geometry, x = Geometry.of(convolution), x.to(compute_dtype(x))
    if norm is None or isinstance(norm, nn.Identity):
        return _apply(x, convolution.weight, None, convolution.bias, shortcut, relu, geometry)
    if isinstance(norm, FrozenBatchNorm2d):
        scale, shift = _scale_and_shift(norm, convolution.bias)
        return _apply(x, convolution.weight, scale, shift, shortcut, relu, geometry)
    if isinstance(norm, nn.BatchNorm2d) and not norm.training:  # its factors learn
        scale, shift = _scale_and_shift(norm, convolution.bias)
        weight = convolution.weight * _column(scale)
        return _apply(x, weight, None, shift, shortcut, relu, geometry)
    out: Tensor = norm(_apply(x, convolution.weight, None, convolution.bias, None, False, geometry))
    if shortcut is not None:
        out = out + shortcut
    return F.relu(out, inplace=True) if relu else out


def convolve_1x1(x: Tensor, weight: Tensor, bias: Tensor, *, relu: bool) -> Tensor:
    """A 1×1 convolution with weights (C', C, 1, 1) that are no module's."""
    once = Geometry([1, 1], [0, 0], [1, 1], 1)
    return _apply(x.to(compute_dtype(x)), weight, None, bias, None, relu, once)


def run_block(block: Any, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
    """A `Conv2dNormActivation` of torchvision: convolution, maybe a norm, maybe an activation.

    Args:
        block: it; or any other module, which is then simply called.
        x: (N, C, H, W).
        shortcut: is added before the activation.
    """
    if not isinstance(block, nn.Sequential) or not isinstance(block[0], nn.Conv2d):
        if shortcut is not None:
            raise TypeError(f"{type(block).__name__} takes no shortcut")
        plain: Tensor = block(x)
        return plain
    parts = list(block)[1:]
    last = parts.pop() if parts and not isinstance(parts[-1], _NORMS) else None
    norm = parts[0] if parts else None
    relu = isinstance(last, nn.ReLU)
    out = convolve(x, block[0], norm, shortcut, relu=relu)
    return out if relu or last is None else last(out)


def compute_dtype(x: Tensor) -> torch.dtype:
    """Autocast's type for the tensor's device, or the tensor's own."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def _scale_and_shift(norm: Any, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    shift = norm.bias - norm.running_mean * scale
    return scale, shift if bias is None else shift + bias * scale


def _apply(
    x: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    shortcut: Tensor | None,
    relu: bool,
    geometry: Geometry,
) -> Tensor:
    if shortcut is not None:
        shortcut = shortcut.to(x.dtype)
    out: Tensor = _Convolution.apply(x, weight, scale, bias, shortcut, relu, geometry)
    return out


class _Convolution(torch.autograd.Function):
    """See `convolve`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        scale: Tensor | None,
        bias: Tensor | None,
        shortcut: Tensor | None,
        relu: bool,
        geometry: Geometry,
    ) -> Tensor:
        folded = _folded(weight, scale, x.dtype)
        out = _forward(x, folded, bias, shortcut, relu, geometry)
        ctx.save_for_backward(x, folded, scale, out if relu else None)
        ctx.geometry, ctx.bias_shape = geometry, None if bias is None else list(bias.shape)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, folded, scale, out = ctx.saved_tensors
        grad, geometry = grads[0], ctx.geometry
        if out is not None:
            grad = torch.ops.aten.threshold_backward(grad, out, 0)
        wanted = ctx.needs_input_grad
        for_x, for_weight, for_bias = torch.ops.aten.convolution_backward(
            grad, x, folded, ctx.bias_shape, geometry.stride, geometry.padding,
            geometry.dilation, False, [0, 0], geometry.groups, [wanted[0], wanted[1], wanted[3]],
        )  # fmt: skip
        if wanted[1]:
            for_weight = for_weight.float() if scale is None else for_weight * _column(scale)
        for_bias = for_bias.float() if wanted[3] else None
        return for_x, for_weight, None, for_bias, grad if wanted[4] else None, None, None


def _forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    shortcut: Tensor | None,
    relu: bool,
    g: Geometry,
) -> Tensor:
    bias = None if bias is None else bias.to(x.dtype)
    if x.device.type == "cpu" and x.numel() and can_pack(x.dtype):
        sizes = (g.padding, g.stride, g.dilation, g.groups)
        fused = torch.ops.mkldnn._convolution_pointwise
        if shortcut is None:
            out: Tensor = fused(x, weight, bias, *sizes, "relu" if relu else "none", [], "")
            return out
        summed: Tensor = fused.binary(
            x, shortcut, weight, bias, *sizes, "add", 1.0, "relu" if relu else None, [], ""
        )
        return summed
    plain = F.conv2d(x, weight, bias, g.stride, g.padding, g.dilation, g.groups)
    if shortcut is not None:
        plain += shortcut
    return plain.relu_() if relu else plain


def _folded(weight: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The weights as they are used: scaled, in the compute type, in one pass."""
    if scale is None:
        return weight.detach().to(dtype)
    folded = torch.empty_like(weight, dtype=dtype)
    return torch.mul(weight.detach(), _column(scale), out=folded)


def _column(scale: Tensor) -> Tensor:
    return scale[:, None, None, None]
