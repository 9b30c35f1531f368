"""RoIAlign as an operator of torch: its contract, `torch.compile`, autocast."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from torch import Tensor

from segcli.models.conventions import Numerics
from segcli.models.pooler import PyramidRoIAlign
from segcli.models.roi_align.ops import pool, pool_backward

SCALES = [1 / 4, 1 / 8]
ROIS = torch.tensor([[0.0, 3, 4, 30, 28], [1, -20, -9, 120, 160], [-1, 0, 0, 1, 1]])


def _maps(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 6, 64 // s, 80 // s, generator=generator).to(dtype) for s in (1, 2)]


def _arguments(ratio: int, dtype: torch.dtype = torch.float32) -> tuple[Any, ...]:
    maps = [m.requires_grad_() for m in _maps(dtype)]
    sizes = [7, 7, 3, 5]
    return (
        maps,
        [ROIS, ROIS[:1]],
        sizes,
        SCALES,
        "torchvision",
        ratio,
        True,
        "avg",
        "gather",
        True,
    )


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # of torch's own check
@pytest.mark.parametrize("ratio", [0, 2])
def test_the_operator_keeps_its_contract(ratio: int) -> None:
    """What torch itself checks: schema, fake tensors, autograd registration, and tracing with dynamic shapes."""
    torch.library.opcheck(pool, _arguments(ratio))  # type: ignore[no-untyped-call]


def test_the_backward_operator_keeps_its_contract() -> None:
    """Likewise for the gradient's operator."""
    grads = [torch.randn(3, 6, 7, 7)]
    shapes = [2, 6, 64, 80, 2, 6, 32, 40]
    arguments = (
        grads, [ROIS], shapes, torch.float32, SCALES, "torchvision", 2, True, "gather", True,
    )  # fmt: skip
    torch.library.opcheck(pool_backward, arguments)  # type: ignore[no-untyped-call]


def test_strides_are_what_the_compiler_was_told() -> None:
    """Real and fake results agree in layout: channels-last."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    real = pool(*_arguments(2))
    with FakeTensorMode(allow_non_fake_inputs=True):
        fake = pool(*_arguments(2))
    assert [r.stride() for r in real] == [f.stride() for f in fake]


@pytest.mark.slow
def test_compile_makes_no_graph_break() -> None:
    """The pooler compiles in one piece, with the same values and gradients as eager."""
    pooler = PyramidRoIAlign(7, Numerics())
    generator = torch.Generator().manual_seed(0)
    maps = {
        str(k): torch.randn(1, 4, 64 >> k, 80 >> k, generator=generator).requires_grad_()
        for k in range(4)
    }
    boxes = [ROIS[:2, 1:]]

    def loss(maps: dict[str, Tensor], boxes: list[Tensor]) -> Tensor:
        return pooler(maps, boxes, []).square().sum()

    expected = loss(maps, boxes)
    slopes = torch.autograd.grad(expected, list(maps.values()))
    found = torch.compile(loss, fullgraph=True, backend="aot_eager")(maps, boxes)
    ours = torch.autograd.grad(found, list(maps.values()))
    torch.testing.assert_close(found, expected)
    for a, b in zip(ours, slopes, strict=True):
        torch.testing.assert_close(a, b)


def test_autocast_keeps_bfloat16() -> None:
    """16-bit features are read as they are, where torchvision's operator makes a float32 copy of the pyramid."""
    pooler = PyramidRoIAlign(7, Numerics())
    maps = {str(k): torch.randn(1, 4, 64 >> k, 80 >> k).bfloat16() for k in range(4)}
    with torch.autocast("cpu", torch.bfloat16):
        pooled = pooler(maps, [ROIS[:2, 1:]], [])
    assert pooled.dtype == torch.bfloat16


def test_kernels_run_on_the_device_of_their_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton launches on the current device; both operators make it the tensors' own first."""
    from segcli.models.roi_align import ops

    entered = []

    def on(tensor: Tensor) -> contextlib.AbstractContextManager[None]:
        entered.append(tuple(tensor.shape))
        return contextlib.nullcontext()

    monkeypatch.setattr(ops, "_on_device_of", on)
    maps = [m.requires_grad_() for m in _maps()]
    pooled = pool(maps, [ROIS], [7, 7], *_arguments(2)[3:])
    torch.autograd.grad(pooled[0].sum(), maps)
    assert entered == [(2, 6, 64, 80), (3, 6, 7, 7)]


def test_mode_max_has_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Said when the graph is made and not in the backward pass."""
    from segcli.models.roi_align import ops

    monkeypatch.setattr(ops, "_forward_of", lambda _: _zeros)
    arguments = list(_arguments(2))
    arguments[7:9] = ["max", "triton"]
    with pytest.raises(ValueError, match="mode 'max' has no gradient in backend triton"):
        pool(*arguments)


def _zeros(maps: list[Tensor], rois: Tensor, size: tuple[int, int], sampling: object) -> Tensor:
    return maps[0].new_zeros((len(rois), *size, maps[0].shape[3]))
