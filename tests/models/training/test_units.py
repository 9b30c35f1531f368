"""Folded convolutions and cells of a pyramid, against torch's modules."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops.misc import FrozenBatchNorm2d

from segcli.models import ARCHITECTURES, Anchors, MaskRCNN, ModelSpec
from segcli.models.training import mask_branch
from segcli.models.training.cells import Cells, inside, patches_at
from segcli.models.training.mask_branch import mask_logits
from segcli.models.training.trunk import pyramid
from segcli.models.training.units import convolve, run_block


def _frozen(channels: int) -> nn.Module:
    norm: nn.Module = FrozenBatchNorm2d(channels)
    for name, buffer in norm.named_buffers():
        buffer.uniform_(0.5, 2) if name == "running_var" else buffer.normal_()
    return norm


def _batch(channels: int) -> nn.Module:
    norm = nn.BatchNorm2d(channels).eval()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    for name, buffer in norm.named_buffers():
        if name != "num_batches_tracked":
            buffer.uniform_(0.5, 2) if name == "running_var" else buffer.normal_()
    return norm


NORMS: dict[str, Callable[[int], nn.Module | None]] = {
    "none": lambda _: None,
    "frozen": _frozen,
    "fixed statistics": _batch,
    "group": lambda channels: nn.GroupNorm(2, channels),
}


@pytest.mark.parametrize("norm_name", NORMS)
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("with_shortcut", [False, True])
@pytest.mark.parametrize("size", [(7, 9), (1, 1)])
def test_a_unit_is_its_modules(
    norm_name: str, relu: bool, with_shortcut: bool, size: tuple[int, int]
) -> None:
    """Output and every gradient, within rounding."""
    torch.manual_seed(0)
    norm, convolution = NORMS[norm_name](8), nn.Conv2d(6, 8, 3, padding=1, groups=2)
    inputs = [torch.randn(2, 6, *size), torch.randn(2, 8, *size)]
    weights = [*convolution.parameters(), *(() if norm is None else norm.parameters())]
    grad = torch.randn(2, 8, *size)

    def run(fused: bool) -> list[Tensor]:
        x, shortcut = (tensor.clone().requires_grad_() for tensor in inputs)
        if fused:
            out = convolve(x, convolution, norm, shortcut if with_shortcut else None, relu=relu)
        else:
            out = convolution(x)
            out = out if norm is None else norm(out)
            out = out + shortcut if with_shortcut else out
            out = F.relu(out) if relu else out
        wanted = [x, *weights, *([shortcut] if with_shortcut else [])]
        return [out, *torch.autograd.grad(out, wanted, grad)]

    for mine, theirs in zip(run(True), run(False), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-5)


def test_padding_of_another_kind_is_refused() -> None:
    """Reflected borders are no zeros."""
    odd = nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")
    with pytest.raises(ValueError, match="expected numbers and zeros"):
        convolve(torch.zeros(1, 3, 8, 8), odd)


def test_a_shortcut_past_another_module_is_refused() -> None:
    """Only a convolution adds one."""
    with pytest.raises(TypeError, match="takes no shortcut"):
        run_block(nn.ReLU(), torch.zeros(1), torch.zeros(1))


@pytest.mark.parametrize(
    "name",
    ["mask-rcnn-r18-fpn", "mask-rcnn-r50-fpn-v2", "mask-rcnn-nano", "mask-rcnn-mobilenet-v3-fpn"],
)
def test_the_pyramid_is_the_backbones(name: str) -> None:
    """Every kind of backbone gives the features that its own forward gives, checkpointed or not."""
    torch.manual_seed(0)
    network = MaskRCNN(ModelSpec(name, 2, Anchors(), ARCHITECTURES[name].conventions)).train()
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = list(network.backbone(images).values())
    for checkpointed in (False, True):
        found = pyramid(network.backbone, images, checkpointed=checkpointed)
        assert len(found) == len(expected)
        for mine, theirs in zip(found, expected, strict=True):
            assert (mine - theirs).abs().max() <= 1e-4 * theirs.abs().max()


@pytest.mark.parametrize("radius", [0, 1, 2])
def test_patches_are_what_a_padded_convolution_sees(radius: int) -> None:
    """Values and gradients of cells in the middle, in corners, twice, and on several levels."""
    torch.manual_seed(0)
    side = 2 * radius + 1
    levels = [
        torch.randn(2, 3, 6, 5, requires_grad=True),
        torch.randn(2, 3, 1, 2, requires_grad=True),
    ]
    cells = Cells(
        *torch.tensor([[0, 1, 1, 0, 1], [0, 0, 0, 1, 1], [0, 5, 5, 0, 0], [0, 4, 4, 1, 0]])
    )
    found = patches_at(levels, cells, radius)
    padded = [F.pad(level, (radius,) * 4) for level in levels]
    expected = torch.stack([
        padded[int(level)][int(p), :, y : y + side, x : x + side]
        for p, level, y, x in zip(cells.picture, cells.level, cells.y.tolist(), cells.x.tolist(), strict=True)
    ])  # fmt: skip
    assert torch.equal(found, expected)
    grad = torch.randn_like(found)
    gradients = [torch.autograd.grad(out, levels, grad) for out in (found, expected)]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))
    ones = patches_at([torch.ones(2, 1, 6, 5), torch.ones(2, 1, 1, 2)], cells, radius)
    assert torch.equal(inside(levels, cells, radius), ones[:, 0] > 0)


@pytest.mark.parametrize("chunk", [64, 3], ids=["at once", "in chunks"])
def test_mask_logits_are_the_matched_rows_of_torchvisions(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One class of each RoI, and the gradient of its row alone."""
    monkeypatch.setattr(mask_branch, "_CHUNK", chunk)
    torch.manual_seed(0)
    row = ARCHITECTURES["mask-rcnn-nano"]
    heads = MaskRCNN(ModelSpec(row.name, 5, Anchors(), row.conventions)).roi_heads
    pooled, rows = torch.randn(4, 64, 14, 14), torch.tensor([3, 1, 3, 5])
    found = mask_logits(heads, pooled, rows)
    every = heads.mask_predictor(heads.mask_head(pooled))
    expected = every[torch.arange(4), rows]
    assert torch.allclose(found, expected, atol=1e-5)
    weights = list(heads.mask_predictor.parameters())
    grad = torch.randn_like(found)
    for mine, theirs in zip(
        torch.autograd.grad(found, weights, grad), torch.autograd.grad(expected, weights, grad), strict=True
    ):  # fmt: skip
        assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-4)
