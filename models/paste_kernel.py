"""Pasting in Triton: from probabilities to the places where pasted masks change, without a pixel being stored.

A program walks down a block of columns of one object, pixel by pixel, twice: to count its edges, and, once a prefix sum
has given each column its place in the output, to write them. Values are those of ATen's operators on a processor with
AVX2 or AVX-512, bit for bit: where its compiler fused a product and a sum so is it here, and nowhere else.

Variables: `i_` index, `o_` offset, `m_` mask, `p_` pointer, `b_` value, capitals sizes.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from segcli.models.conventions import Postprocess
from segcli.models.paste_boxes import Axis
from segcli.models.roi_align.geometry import rounded_product

COLUMNS = 32  # of a program: a warp, so that programs of narrow objects waste little
_INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
_SMALL = tl.constexpr(128)  # height + width up to which ATen resizes by another kernel


@triton.jit
def _fused(a, b, c):  # type: ignore[no-untyped-def]  # Triton's own types; so below
    """The sum of a product, rounded once; the interpreter's own rounds twice."""
    if _INTERPRETED:
        return (a.to(tl.float64) * b.to(tl.float64) + c.to(tl.float64)).to(tl.float32)
    return tl.fma(a, b, c)


@triton.jit
def _centred(i, origin, length, M):  # type: ignore[no-untyped-def]
    """Cell before a pixel's centre, counted with the rim (int32), and the next one's weight; as `grid_sample`."""
    at = tl.div_rn((i.to(tl.float32) + 0.5) - origin, length) * 2.0 - 1.0
    at = _fused(at + 1.0, M * 1.0, tl.full((), -1.0, tl.float32)) * 0.5
    low = tl.floor(at)
    # clamped where all cells are of the rim and the weight is of no matter
    cell = tl.minimum(tl.maximum(low, -2.0), M * 1.0).to(tl.int32)
    return cell + 1, at - low


@triton.jit
def _truncated(i, origin, length, M):  # type: ignore[no-untyped-def]
    """Cell before a pixel's centre, counted with the rim (int32), and the next one's weight; as `interpolate`."""
    half = tl.full((), -0.5, tl.float32)
    scale = tl.div_rn((M + 2) * 1.0, length)
    at = _fused((i.to(tl.float32) - origin) - half, scale, half)
    at = tl.maximum(at, 0.0)
    cell = tl.minimum(at.to(tl.int32), M + 1)
    return cell, tl.minimum(at - cell.to(tl.float32), 1.0)


@triton.jit
def _probability(p_mask, i_x, i_y, M, m):  # type: ignore[no-untyped-def]
    """The cell's number, 0 on the rim and beyond; cells are counted with the rim."""
    m_x = (i_x >= 1) & (i_x <= M) & m
    m_y = tl.where((i_y >= 1) & (i_y <= M), 1, 0)
    return tl.load(
        p_mask + (i_y - 1) * M + (i_x - 1), mask=m_x & (m_x.to(tl.int32) == m_y), other=0.0
    )


@triton.jit
def _blended(b_00, b_01, b_10, b_11, x_upper, y_upper, summed_first, CENTRES: tl.constexpr):  # type: ignore[no-untyped-def]
    """The bilinear value in the order of sums and roundings of the operator.

    `grid_sample` and the `interpolate` of small outputs weigh four numbers, the `interpolate` of others rows first.
    """
    x_lower, y_lower = 1.0 - x_upper, 1.0 - y_upper
    if CENTRES:
        b = rounded_product(b_00, x_lower * y_lower)
        b = _fused(b_01, x_upper * y_lower, b)
        b = _fused(b_10, x_lower * y_upper, b)
        b = _fused(b_11, x_upper * y_upper, b)
    elif summed_first:
        b = rounded_product(b_01, x_upper * y_lower)
        b = _fused(b_00, x_lower * y_lower, b)
        b = _fused(b_10, x_lower * y_upper, b)
        b = _fused(b_11, x_upper * y_upper, b)
    else:
        b_0 = _fused(b_00, x_lower, rounded_product(b_01, x_upper))
        b_1 = _fused(b_10, x_lower, rounded_product(b_11, x_upper))
        b = _fused(b_0, x_lower * 0.0 + y_lower, rounded_product(b_1, x_lower * 0.0 + y_upper))
    return b


@triton.jit(do_not_specialize=["H", "W", "M"])  # else every size of picture would compile anew
def paste_edges_kernel(  # type: ignore[no-untyped-def]
    p_masks, p_crops, p_rules, p_first, p_out, H, W, M,
    CENTRES: tl.constexpr, INCLUSIVE: tl.constexpr, WRITE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Grid (N · ⌈W / BLOCK⌉). Masks float32 (N, M, M), crops int32 (N, 4), rules float32 (N, 4), see `tables_of`.

    Without WRITE: the edges of each column, int32, to out (N, W). With it: each edge's key, int64, from the column's
    place in first, int64 (N, W), on.
    """
    blocks = (W + BLOCK - 1) // BLOCK
    i_n, i_block = (tl.program_id(0) // blocks).to(tl.int64), tl.program_id(0) % blocks
    x_start, x_end = tl.load(p_crops + i_n * 4), tl.load(p_crops + i_n * 4 + 1)
    y_start, y_end = tl.load(p_crops + i_n * 4 + 2), tl.load(p_crops + i_n * 4 + 3)
    if x_start + i_block * BLOCK >= x_end:
        return
    i_x = x_start + i_block * BLOCK + tl.arange(0, BLOCK)
    m_x = i_x < x_end
    p_mask = p_masks + i_n * M * M
    x_origin, x_length = tl.load(p_rules + i_n * 4), tl.load(p_rules + i_n * 4 + 1)
    y_origin, y_length = tl.load(p_rules + i_n * 4 + 2), tl.load(p_rules + i_n * 4 + 3)
    small = x_length + y_length <= _SMALL
    if CENTRES:
        x_cell, x_upper = _centred(i_x, x_origin, x_length, M)
    else:
        x_cell, x_upper = _truncated(i_x, x_origin, x_length, M)
    o_column = i_n * W + i_x
    o_out = tl.zeros((BLOCK,), tl.int64)
    if WRITE:
        o_out = tl.load(p_first + o_column, mask=m_x, other=0)
    b_count, b_before = tl.zeros((BLOCK,), tl.int32), tl.zeros((BLOCK,), tl.int32)
    for i_row in range(0, y_end - y_start + 1):  # the row behind the crop ends what is open
        i_y = y_start + i_row
        if CENTRES:
            y_cell, y_upper = _centred(i_y, y_origin, y_length, M)
        else:
            y_cell, y_upper = _truncated(i_y, y_origin, y_length, M)
        b = _blended(
            _probability(p_mask, x_cell, y_cell, M, m_x),
            _probability(p_mask, x_cell + 1, y_cell, M, m_x),
            _probability(p_mask, x_cell, y_cell + 1, M, m_x),
            _probability(p_mask, x_cell + 1, y_cell + 1, M, m_x),
            x_upper, y_upper, small, CENTRES,
        )  # fmt: skip
        m_inside = (b >= 0.5) if INCLUSIVE else (b > 0.5)
        b_inside = tl.where(i_y < y_end, m_inside.to(tl.int32), 0)
        m_edge = b_inside != b_before
        if WRITE:
            key = (i_n * H * W + i_n) + i_x.to(tl.int64) * H + i_y
            tl.store(p_out + o_out + b_count, key, mask=m_edge & m_x)
        b_count += m_edge.to(tl.int32)
        b_before = b_inside
    if not WRITE:
        tl.store(p_out + o_column, b_count, mask=m_x)


def edges_on_device(
    masks: Tensor, x: Axis, y: Axis, size: tuple[int, int], conventions: Postprocess
) -> Tensor:
    """Where pasted masks change.

    Args:
        masks: float32 (N, M, M).
        x: of the boxes, see `place`.
        y: likewise.
        size: (H, W) of the picture.
        conventions: which paste rule, and whether 0.5 counts.

    Returns:
        int64 (E,), sorted: object · (H · W + 1) + place, column by column, on the masks' device. The host waits once,
        for E.
    """
    if len(masks) == 0:
        return torch.zeros(0, dtype=torch.int64, device=masks.device)
    tables = tables_of(x, y)
    counts = torch.zeros((len(masks), size[1]), dtype=torch.int32, device=masks.device)
    launch(masks, tables, None, counts, size, conventions)
    behind = counts.view(-1).cumsum(0)  # int64
    first = (behind - counts.view(-1)).view_as(counts)
    keys = torch.empty(int(behind[-1]), dtype=torch.int64, device=masks.device)
    launch(masks, tables, first, keys, size, conventions)
    return keys


def tables_of(x: Axis, y: Axis) -> tuple[Tensor, Tensor]:
    """int32 (N, 4): first pixel and the one behind the last, of x and y; float32 (N, 4): origin and length."""
    crops = torch.stack((x.start, x.end, y.start, y.end), 1).to(torch.int32)
    rules = torch.stack([t.to(torch.float32) for t in (x.origin, x.length, y.origin, y.length)], 1)
    return crops, rules


def launch(
    masks: Tensor, tables: tuple[Tensor, Tensor], first: Tensor | None, out: Tensor,
    size: tuple[int, int], conventions: Postprocess,
) -> None:  # fmt: skip
    """One walk of the kernel.

    Args:
        masks: float32 (N, M, M).
        tables: see `tables_of`.
        first: None to count; to write, int64 (N, W), each column's place in `out`.
        out: int32 (N, W), zeros, for the edges of each column; to write, int64, as long as all of them.
        size: (H, W) of the picture.
        conventions: which paste rule, and whether 0.5 counts.
    """
    constants: dict[str, Any] = {
        "CENTRES": conventions.mask_paste == "pixel_centres",
        "INCLUSIVE": conventions.mask_inclusive,
        "WRITE": first is not None,
        "BLOCK": COLUMNS,
    }
    grid = (len(masks) * triton.cdiv(size[1], COLUMNS),)
    with torch.cuda.device(masks.device) if masks.is_cuda else contextlib.nullcontext():
        paste_edges_kernel[grid](
            masks.contiguous(), *tables, out if first is None else first, out,
            *size, masks.shape[1], **constants, num_warps=1,
        )  # fmt: skip
