"""Units against the modules they are made of."""

from __future__ import annotations

import copy
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops.misc import FrozenBatchNorm2d

from segcli.models.inference.units import ConvUnit, LinearUnit, can_pack, pack, to_type


def _frozen(channels: int) -> FrozenBatchNorm2d:
    norm = FrozenBatchNorm2d(channels, eps=1e-3)
    for name in ("weight", "bias", "running_mean"):
        getattr(norm, name).normal_()
    norm.running_var.uniform_(0.2, 3.0)
    return norm


def _batch(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    norm.running_mean.normal_()  # type: ignore[union-attr]
    norm.running_var.uniform_(0.2, 3.0)  # type: ignore[union-attr]
    return norm.eval()


NORMS = {
    "none": lambda _: None,
    "frozen": _frozen,
    "batch": _batch,
    "group": lambda channels: nn.GroupNorm(4, channels),
    "identity": lambda _: nn.Identity(),
}


def _close(ours: Tensor, theirs: Tensor, within: float) -> None:
    assert ours.shape == theirs.shape
    scale = theirs.abs().max().item()
    assert (ours.double() - theirs.double()).abs().max().item() <= within * scale


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("norm", "relu", "added"), list(product(NORMS, (False, True), (False, True)))
)
def test_a_unit_is_convolution_norm_sum_relu(
    norm: str, relu: bool, added: bool, packed: bool
) -> None:
    """In this order, in double precision; inputs are not written to."""
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 12, 3, stride=2, padding=1, dilation=2, groups=2, bias=norm == "none")
    behind = NORMS[norm](12)
    unit = ConvUnit(conv, behind, relu=relu).eval()
    to_type(unit, torch.float32)
    if packed:
        if not can_pack():
            pytest.skip("no fused convolutions of oneDNN in this torch")
        pack(unit)
    x = torch.randn(2, 8, 19, 23).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        expected = conv.double()(x.double())
        if behind is not None:
            expected = copy.deepcopy(behind).double()(expected)
        shortcut = torch.randn(expected.shape).contiguous(memory_format=torch.channels_last)
        expected = expected + shortcut.double() if added else expected
        expected = F.relu(expected) if relu else expected
        before = (x.clone(), shortcut.clone())
        for _ in range(2):  # the first call of a packed unit changes its weights' layout
            _close(unit(x, shortcut if added else None), expected, 3e-6)
    assert torch.equal(x, before[0])
    assert torch.equal(shortcut, before[1])


@pytest.mark.skipif(not can_pack(), reason="no fused convolutions of oneDNN in this torch")
def test_packed_for_one_size_it_takes_others() -> None:
    """One pixel, none, other batch sizes."""
    torch.manual_seed(0)
    conv = nn.Conv2d(16, 24, 3, padding=1)
    unit = ConvUnit(conv, relu=True)
    pack(unit)
    with torch.inference_mode():
        for shape in ((1, 16, 40, 50), (3, 16, 1, 1), (1, 16, 7, 90), (0, 16, 5, 5)):
            x = torch.randn(shape).contiguous(memory_format=torch.channels_last)
            expected = F.relu(conv(x))
            found = unit(x)
            assert found.shape == expected.shape
            assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.skipif(not can_pack(), reason="no fused convolutions of oneDNN in this torch")
def test_threads_lay_out_weights_once() -> None:
    """Lanes call the same units at the same time from their first batch on."""
    torch.manual_seed(0)
    conv, linear = nn.Conv2d(16, 24, 3, padding=1), nn.Linear(16, 24)
    x = torch.randn(1, 16, 9, 9).contiguous(memory_format=torch.channels_last)
    rows = torch.randn(4, 16)
    expected, multiplied = conv(x), linear(rows)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool, torch.inference_mode():
            for _ in range(150):
                unit, matrix = ConvUnit(conv), LinearUnit(linear.weight, linear.bias)
                pack(unit)
                pack(matrix)
                gate = threading.Barrier(4)

                def call(_: int, unit: Any = unit, matrix: Any = matrix, gate: Any = gate) -> Any:
                    gate.wait()
                    with torch.inference_mode():
                        return unit(x), matrix(rows)

                for found, ours in pool.map(call, range(4)):
                    assert torch.allclose(found, expected, atol=1e-5)
                    assert torch.allclose(ours, multiplied, atol=1e-5)
    finally:
        sys.setswitchinterval(before)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("rows", [0, 1, 100])
def test_a_matrix_product(rows: int, packed: bool) -> None:
    """Any number of rows, none too."""
    if packed and not can_pack():
        pytest.skip("no fused convolutions of oneDNN in this torch")
    torch.manual_seed(0)
    weight, bias = torch.randn(5, 30), torch.randn(5)
    unit = LinearUnit(weight, bias, relu=True)
    if packed:
        pack(unit)
    x = torch.randn(rows, 30)
    with torch.inference_mode():
        found = unit(x)
    assert torch.allclose(found, F.relu(x @ weight.T + bias), atol=1e-5)


def test_bfloat16_rounds_and_no_more() -> None:
    """Within the rounding of inputs, weights and result."""
    torch.manual_seed(0)
    conv = nn.Conv2d(16, 24, 3, padding=1)
    unit = ConvUnit(conv)
    to_type(unit, torch.bfloat16)
    x = torch.randn(1, 16, 20, 20)
    with torch.inference_mode():
        found = unit(x.bfloat16())
        assert found.dtype == torch.bfloat16
        _close(found.float(), conv(x), 2**-6)


def test_a_padding_that_no_family_has_is_refused() -> None:
    """Instead of being ignored."""
    with pytest.raises(ValueError, match="reflect"):
        ConvUnit(nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"))
