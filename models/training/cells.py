"""Features around a few cells of a pyramid, as small patches with a gradient.

The losses of the RPN look at 256 anchors of a picture out of 100,000 and more. The gradient of its head is zero
everywhere else, so the head runs twice: over everything without a gradient, for the proposals, and over the patches of
the sampled anchors with one. That is exact, and saves the backward pass of a convolution over all levels, a fifth of a
step's arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Cells:
    """Cells of a pyramid.

    Attributes:
        picture: int64 (S,).
        level: int64 (S,).
        y: int64 (S,), row of the cell on its level.
        x: int64 (S,), column.
    """

    picture: Tensor
    level: Tensor
    y: Tensor
    x: Tensor


def patches_at(levels: list[Tensor], cells: Cells, radius: int) -> Tensor:
    """The (2 · radius + 1)² cells around each cell, zeros outside the map as a convolution pads it.

    Args:
        levels: (N, C, H, W) each.
        cells: S of them.
        radius: 1 for a 3×3 convolution.

    Returns:
        (S, C, side, side), channels last, in the features' type.
    """
    out: Tensor = _Patches.apply(cells, radius, *levels)
    side = 2 * radius + 1
    return out.view(-1, side, side, out.shape[-1]).permute(0, 3, 1, 2)


def inside(levels: list[Tensor], cells: Cells, radius: int) -> Tensor:
    """Which cells of each patch lie on the map, bool (S, side, side)."""
    heights = torch.tensor([level.shape[2] for level in levels], device=cells.y.device)
    widths = torch.tensor([level.shape[3] for level in levels], device=cells.y.device)
    off = torch.arange(-radius, radius + 1, device=cells.y.device)
    y, x = cells.y[:, None] + off, cells.x[:, None] + off
    rows = (y >= 0) & (y < heights[cells.level][:, None])
    return rows[:, :, None] & ((x >= 0) & (x < widths[cells.level][:, None]))[:, None]


@dataclass(frozen=True, eq=False)
class _Taps:
    """What one level has: which cells (S',), and of their patches the rows of its table and whether they are read."""

    cells: Tensor
    rows: Tensor
    read: Tensor


def _taps(shape: torch.Size, index: int, cells: Cells, radius: int) -> _Taps:
    """Of a level with (N, C, H, W); rows int64 and read bool, (S', side²)."""
    N, _, H, W = shape
    if cells.level.device.type == "cpu":
        mine = torch.where(cells.level == index)[0]
    else:  # their number is not known without waiting: all, and those of other levels read nothing
        mine = torch.arange(len(cells.level), device=cells.level.device)
    off = torch.arange(-radius, radius + 1, device=mine.device)
    y = (cells.y[mine, None] + off)[:, :, None]
    x = (cells.x[mine, None] + off)[:, None]
    read = (y >= 0) & (y < H) & (x >= 0) & (x < W)
    read = (read & (cells.level[mine] == index)[:, None, None]).flatten(1)
    rows = ((cells.picture[mine, None, None] * H + y) * W + x).flatten(1)
    if rows.is_cpu:
        return _Taps(mine, rows.masked_fill_(~read, 0), read)
    # what is not read adds zeros, each to another row: CUDA adds to equal rows one after another
    spare = torch.arange(rows.numel(), device=rows.device).view_as(rows) % (N * H * W)
    return _Taps(mine, torch.where(read, rows, spare), read)


class _Patches(torch.autograd.Function):
    """Gather of rows of channels; its gradient adds them to where they came from."""

    @staticmethod
    def forward(ctx: Any, cells: Cells, radius: int, *levels: Tensor) -> Tensor:
        side, C = 2 * radius + 1, levels[0].shape[1]
        out = levels[0].new_zeros((len(cells.level), side * side, C))
        ctx.taps, ctx.shapes = [], [level.shape for level in levels]
        for index, level in enumerate(levels):
            taps = _taps(level.shape, index, cells, radius)
            ctx.taps.append(taps)
            table = level.permute(0, 2, 3, 1).reshape(-1, C)
            found = table[taps.rows.view(-1)].view(*taps.rows.shape, C)
            found.masked_fill_(~taps.read[:, :, None], 0)
            out.index_add_(0, taps.cells, found)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad = grads[0]
        out: list[Tensor | None] = []
        for taps, (N, C, H, W), wanted in zip(
            ctx.taps, ctx.shapes, ctx.needs_input_grad[2:], strict=True
        ):
            if not wanted:
                out.append(None)
                continue
            table = grad.new_zeros((N * H * W, C))
            values = grad[taps.cells].masked_fill_(~taps.read[:, :, None], 0).view(-1, C)
            if grad.is_cuda:  # sorted, and so the same bits in every run
                table.index_put_((taps.rows.view(-1),), values, accumulate=True)
            else:
                table.index_add_(0, taps.rows.view(-1), values)
            out.append(table.view(N, H, W, C).permute(0, 3, 1, 2))
        return None, None, *out
