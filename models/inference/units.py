"""A convolution or matrix product with what follows it as one unit, run as one call where oneDNN can."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.ops.misc import FrozenBatchNorm2d

_FIXED = (FrozenBatchNorm2d, nn.BatchNorm2d)
_LAYING_OUT = threading.Lock()  # one for all units: each is laid out once


class ConvUnit(nn.Module):
    """Convolution, norm, sum with a shortcut, ReLU: what of these there is, in this order.

    A batch norm, whose statistics are fixed at inference, is folded into the convolution. The unit begins as plain
    torch, which compilers and exporters understand; after `pack` it is one call of oneDNN.

    Args:
        convolution: its weights are copied.
        norm: the norm behind it, in evaluation mode.
        relu: whether a ReLU ends the unit.
    """

    def __init__(
        self, convolution: nn.Conv2d, norm: nn.Module | None = None, *, relu: bool = False
    ) -> None:
        super().__init__()
        if convolution.padding_mode != "zeros" or isinstance(convolution.padding, str):
            raise ValueError(
                f"padding {convolution.padding!r} of mode {convolution.padding_mode!r}: expected numbers and zeros"
            )
        weight, bias = convolution.weight.detach(), convolution.bias
        if isinstance(norm, _FIXED):
            weight, bias = _folded(convolution, norm)
            norm = None
        self.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
        self.bias = (
            None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)
        )
        self.norm = None if norm is None or isinstance(norm, nn.Identity) else norm
        self.relu = relu
        self.stride, self.padding = list(convolution.stride), list(convolution.padding)
        self.dilation, self.groups = list(convolution.dilation), convolution.groups
        self.packed = False

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """Features (N, C, H, W) to (N, C', H', W').

        Args:
            x: input.
            shortcut: is added before the ReLU.
        """
        if self.packed:
            out = self._packed(x, shortcut)
        else:
            out = F.conv2d(
                x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
            )
        if self.packed and self.norm is None:
            return out
        if self.norm is not None:
            # a CPU's group norm takes 16-bit features with float32 factors, CUDA's does not
            out = self.norm(out) if out.is_cpu else self.norm(out.float()).to(out.dtype)
        if shortcut is not None:
            out = out + shortcut
        return F.relu(out) if self.relu else out

    def _packed(self, x: Tensor, shortcut: Tensor | None) -> Tensor:
        relu = self.relu and self.norm is None
        geometry = (self.padding, self.stride, self.dilation, self.groups)
        if shortcut is None or self.norm is not None:
            out: Tensor = torch.ops.mkldnn._convolution_pointwise(
                x, self._opaque(x), self.bias, *geometry, "relu" if relu else "none", [], ""
            )
            return out
        summed: Tensor = torch.ops.mkldnn._convolution_pointwise.binary(
            x, shortcut, self._opaque(x), self.bias, *geometry,
            "add", 1.0, "relu" if relu else None, [], "",
        )  # fmt: skip
        return summed

    def to_type(self, dtype: torch.dtype) -> None:
        """Convolve in `dtype`; a norm keeps its own type, and its statistics are float32 in any case."""
        self.weight.data = self.weight.data.to(dtype).contiguous(memory_format=torch.channels_last)
        if self.bias is not None:
            self.bias.data = self.bias.data.to(dtype)

    def pack(self) -> None:
        """From the next call on use oneDNN's own layout of the weights, changed once and not in every call.

        Plain torch is then no longer possible. The layout is chosen for the size of that call's input; it suits others.
        """
        self.packed = True

    def _opaque(self, x: Tensor) -> Tensor:
        geometry = (self.padding, self.stride, self.dilation, self.groups, list(x.shape))
        reorder = torch.ops.mkldnn._reorder_convolution_weight
        return _laid_out(self, lambda weight: reorder(weight, *geometry))


class LinearUnit(nn.Module):
    """A matrix product with its bias and ReLU.

    Args:
        weight: (out, in); copied.
        bias: (out,); copied.
        relu: whether a ReLU ends the unit.
    """

    def __init__(self, weight: Tensor, bias: Tensor, *, relu: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
        self.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
        self.relu = relu
        self.packed = False

    def forward(self, rows: Tensor) -> Tensor:
        """(R, in) to (R, out)."""
        if not self.packed:
            out = F.linear(rows, self.weight, self.bias)
            return F.relu_(out) if self.relu else out
        reorder = torch.ops.mkldnn._reorder_linear_weight
        opaque = _laid_out(self, lambda weight: reorder(weight, len(rows)))
        product: Tensor = torch.ops.mkldnn._linear_pointwise(
            rows, opaque, self.bias, "relu" if self.relu else "none", [], ""
        )
        return product

    def to_type(self, dtype: torch.dtype) -> None:
        """Multiply in `dtype`."""
        self.weight.data, self.bias.data = self.weight.data.to(dtype), self.bias.data.to(dtype)

    def pack(self) -> None:
        """As `ConvUnit.pack`."""
        self.packed = True


def _laid_out(unit: nn.Module, reorder: Callable[[Tensor], Tensor]) -> Tensor:
    """The weight of a packed unit in oneDNN's layout, changed by the first of the threads that ask for it."""
    found: Tensor | None = vars(unit).get("weight")
    if found is None:
        with _LAYING_OUT:
            found = vars(unit).get("weight")
            if found is None:
                found = reorder(unit.get_parameter("weight").detach())
                vars(unit)["weight"] = found  # an opaque tensor is no parameter
                del unit._parameters["weight"]
    return found


def can_pack(dtype: torch.dtype = torch.float32) -> bool:
    """Whether oneDNN's fused convolutions (Inductor's own building blocks on a CPU) are in this torch and run here.

    In bfloat16 they refuse processors without AVX512, which plain torch serves too, slowly.
    """
    operators = torch.ops.mkldnn
    if not (torch._C._has_mkldnn and hasattr(operators, "_convolution_pointwise")):
        return False
    return dtype != torch.bfloat16 or bool(operators._is_mkldnn_bf16_supported())


def pack(module: nn.Module) -> None:
    """Pack every unit in `module`."""
    for child in module.modules():
        if isinstance(child, ConvUnit | LinearUnit) and not child.packed:
            child.pack()


def to_type(module: nn.Module, dtype: torch.dtype) -> None:
    """Let every unit in `module` compute in `dtype`."""
    for child in module.modules():
        if isinstance(child, ConvUnit | LinearUnit):
            child.to_type(dtype)


@torch.no_grad()
def _folded(convolution: nn.Conv2d, norm: Any) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution with the batch norm behind it."""
    weight, bias = fuse_conv_bn_weights(
        convolution.weight,
        convolution.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )
    return weight, bias
