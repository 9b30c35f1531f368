"""RoIAlign backward in Triton, bitwise the same in every run: each tile of a map gathers from the RoIs that touch it.

A program owns 8 × 8 cells of one map for a block of channels, adds up in registers what each RoI of the tile's list
gives them, in rising order, and stores every cell once. So there are no atomics, no buffer that must be zeroed, and
the result is rounded once to the features' type. Pooled gradients of two output sizes (boxes and masks) end in one
gradient of the features.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from segcli.models.roi_align.backward_lists import map_sizes, tile_lists, tile_place
from segcli.models.roi_align.geometry import pick
from segcli.models.roi_align.launch import backward_launch
from segcli.models.roi_align.sampling import MAX_LEVELS, Sampling


@triton.jit
def _four_bins(p_bin, i_c, end_1, end_2, end_3, C: tl.constexpr):  # type: ignore[no-untyped-def]
    """Gradients of four neighbouring bins, each for a block of channels; 0 from its end on."""
    b_0 = tl.load(p_bin, mask=i_c < C, other=0.0)
    b_1 = tl.load(p_bin + C, mask=i_c < end_1, other=0.0)
    b_2 = tl.load(p_bin + C * 2, mask=i_c < end_2, other=0.0)
    b_3 = tl.load(p_bin + C * 3, mask=i_c < end_3, other=0.0)
    return b_0, b_1, b_2, b_3


@triton.jit
def _add_roi(  # type: ignore[no-untyped-def]
    b_acc, p_grad, p_weight_y, p_weight_x, y_bin, y_end, x_bin, x_end, row_stride, i_c,
    C: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """`b_acc` (rows, columns, channels) plus what a RoI's bins give the cells of a tile.

    Four bins of a row at a time, as few RoIs have more over 8 cells; the next row is loaded while this one is added.
    """
    i_cell = tl.arange(0, TILE)
    for i in range(x_bin, x_end, 4):
        end_1, end_2 = tl.where(i + 1 < x_end, C, 0), tl.where(i + 2 < x_end, C, 0)
        end_3 = tl.where(i + 3 < x_end, C, 0)
        p_x = p_weight_x + i * TILE + i_cell
        b_x0 = tl.load(p_x)
        b_x1 = tl.load(p_x + TILE, mask=i_cell < end_1 * TILE, other=0.0)
        b_x2 = tl.load(p_x + TILE * 2, mask=i_cell < end_2 * TILE, other=0.0)
        b_x3 = tl.load(p_x + TILE * 3, mask=i_cell < end_3 * TILE, other=0.0)
        p_bin = p_grad + y_bin * row_stride + i * C + i_c
        b_0, b_1, b_2, b_3 = _four_bins(p_bin, i_c, end_1, end_2, end_3, C)
        for i_y in range(y_bin, y_end):
            b_y = tl.load(p_weight_y + i_y * TILE + i_cell)
            b_row = b_x0[:, None] * b_0.to(tl.float32)[None, :]
            b_row += b_x1[:, None] * b_1.to(tl.float32)[None, :]
            b_row += b_x2[:, None] * b_2.to(tl.float32)[None, :]
            b_row += b_x3[:, None] * b_3.to(tl.float32)[None, :]
            p_bin += tl.where(i_y + 1 < y_end, row_stride, 0)
            b_0, b_1, b_2, b_3 = _four_bins(p_bin, i_c, end_1, end_2, end_3, C)
            b_acc += b_y[:, None, None] * b_row[None, :, :]
    return b_acc


_SIZES = [
    "H0", "H1", "H2", "H3", "W0", "W1", "W2", "W3", "N", "R1", "PH1", "PW1", "PH2", "PW2", "TY", "TX", "SLOTS",
]  # fmt: skip


@triton.jit(do_not_specialize=_SIZES)
def roi_align_gather_kernel(  # type: ignore[no-untyped-def]
    p_out0, p_out1, p_out2, p_out3, p_partial, p_grad1, p_grad2,
    p_weights, p_list, p_begin, p_slot, p_slot_tile, p_plan,
    H0, H1, H2, H3, W0, W1, W2, W3, N, R1, PH1, PW1, PH2, PW2, TY, TX, SLOTS,
    C: tl.constexpr, TILE: tl.constexpr, UNIT: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Grid (slots + tiles, ⌈C / BLOCK_C⌉): chunks of cut lists, which take longest, then the other tiles.

    Out (N, H, W, C) per level; partial float32 (slots, TILE, TILE, C); pooled gradients (R, PH, PW, C). For the rest
    see `backward_lists`.
    """
    i_item = tl.program_id(0)
    if i_item < SLOTS:
        if i_item >= tl.load(p_plan + 1):
            return
        i_tile = tl.load(p_slot_tile + i_item)
        length = tl.load(p_plan)
        i_chunk = (i_item - tl.load(p_slot + i_tile)).to(tl.int64)
        begin = tl.load(p_begin + i_tile) + i_chunk * length
        end = tl.minimum(begin + length, tl.load(p_begin + i_tile + 1))
    else:
        i_tile = i_item - SLOTS
        if tl.load(p_slot + i_tile + 1) > tl.load(p_slot + i_tile):
            return
        begin, end = tl.load(p_begin + i_tile), tl.load(p_begin + i_tile + 1)
    level, i_picture, tile_y, tile_x = tile_place(i_tile, H0, H1, H2, H3, W0, W1, W2, W3, N, TILE)
    i_c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)

    ROWS1, ROWS2 = tl.maximum(PH1, PW1), tl.maximum(PH2, PW2)
    p_weights2 = p_weights + R1.to(tl.int64) * ((TY + TX) * ROWS1 * TILE)
    b_acc = tl.zeros((TILE, TILE, BLOCK_C), tl.float32)
    b_entry = tl.load(p_list + begin, mask=begin < end, other=0)
    for i in range(begin, end):
        # in flight during this RoI's sums
        b_next = tl.load(p_list + i + 1, mask=i + 1 < end, other=0)
        i_roi, b_bins = b_entry.to(tl.int32), (b_entry >> 32).to(tl.int32)
        y_bin, y_end = (b_bins & 255) * UNIT, ((b_bins >> 8) & 255) * UNIT + UNIT
        x_bin, x_end = ((b_bins >> 16) & 255) * UNIT, ((b_bins >> 24) & 255) * UNIT + UNIT
        m_first = i_roi < R1
        PH, PW = tl.where(m_first, PH1, PH2), tl.where(m_first, PW1, PW2)
        ROWS = tl.where(m_first, ROWS1, ROWS2)
        i_own = tl.where(m_first, i_roi, i_roi - R1).to(tl.int64)
        p_weight = tl.where(m_first, p_weights, p_weights2) + i_own * ((TY + TX) * ROWS * TILE)
        p_grad = tl.where(m_first, p_grad1, p_grad2) + i_own * (PH * PW * C)
        # a tile that is touched with weight 0 has no bins along y, and then no first one to read
        x_end = tl.where(y_bin < PH, tl.minimum(x_end, PW), 0)
        b_acc = _add_roi(
            b_acc, p_grad, p_weight + tile_y * ROWS * TILE, p_weight + (TY + tile_x) * ROWS * TILE,
            y_bin, tl.minimum(y_end, PH), x_bin, x_end, PW * C, i_c, C, TILE,
        )  # fmt: skip
        b_entry = b_next

    # a warp stores 32 neighbouring channels; told of no alignment, or sums would change threads for wider stores
    m_c = (i_c < C)[None, None, :]
    i_y, i_x = tl.arange(0, TILE)[:, None, None], tl.arange(0, TILE)[None, :, None]
    i_c = i_c[None, None, :]
    if i_item < SLOTS:
        p_store = p_partial + i_item.to(tl.int64) * TILE * TILE * C + ((i_y * TILE + i_x) * C + i_c)
        tl.store(tl.multiple_of(p_store, [1, 1, 1]), b_acc, mask=m_c)
        return
    H, W = pick(level, H0, H1, H2, H3), pick(level, W0, W1, W2, W3)
    p_out = pick(level, p_out0, p_out1, p_out2, p_out3)
    p_out += ((i_picture.to(tl.int64) * H + tile_y * TILE) * W + tile_x * TILE) * C
    m = m_c & (tile_y * TILE + i_y < H) & (tile_x * TILE + i_x < W)
    p_store = p_out + i_y.to(tl.int64) * W * C + (i_x * C + i_c)
    tl.store(tl.multiple_of(p_store, [1, 1, 1]), b_acc.to(p_out0.dtype.element_ty), mask=m)


@triton.jit(do_not_specialize=["H0", "H1", "H2", "H3", "W0", "W1", "W2", "W3", "N"])
def reduce_kernel(  # type: ignore[no-untyped-def]
    p_out0, p_out1, p_out2, p_out3, p_partial, p_slot, p_slot_tile, p_plan,
    H0, H1, H2, H3, W0, W1, W2, W3, N, C,
    TILE: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Grid (slots, TILE, ⌈C / BLOCK_C⌉): a row of cells of each cut tile, the sum of its chunks in order."""
    i_slot, i_y = tl.program_id(0), tl.program_id(1)
    if i_slot >= tl.load(p_plan + 1):
        return
    i_tile = tl.load(p_slot_tile + i_slot)
    if tl.load(p_slot + i_tile) != i_slot:  # not the first chunk of its tile
        return
    level, i_picture, tile_y, tile_x = tile_place(i_tile, H0, H1, H2, H3, W0, W1, W2, W3, N, TILE)
    i_x = tl.arange(0, TILE)
    i_c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    m_c = (i_c < C)[None, :]
    b_acc = tl.zeros((TILE, BLOCK_C), tl.float32)
    for i in range(i_slot, tl.load(p_slot + i_tile + 1)):
        o_row = (tl.cast(i, tl.int64) * TILE + i_y) * TILE
        b_acc += tl.load(
            p_partial + ((o_row + i_x) * C)[:, None] + i_c[None, :], mask=m_c, other=0.0
        )
    H, W = pick(level, H0, H1, H2, H3), pick(level, W0, W1, W2, W3)
    i_y, i_x = tile_y * TILE + i_y, tile_x * TILE + i_x
    p_out = pick(level, p_out0, p_out1, p_out2, p_out3) + i_picture.to(tl.int64) * H * W * C
    p_store = p_out + ((i_y.to(tl.int64) * W + i_x) * C)[:, None] + i_c[None, :]
    m = (i_x < tl.where(i_y < H, W, 0))[:, None] & m_c
    tl.store(p_store, b_acc.to(p_out0.dtype.element_ty), mask=m)


def backward(
    grads: list[Tensor],
    rois: list[Tensor],
    shapes: list[tuple[int, int, int, int]],
    dtype: torch.dtype,
    sampling: Sampling,
) -> list[Tensor]:
    """Gradient of the features of average poolings over them.

    Two poolings share the lists and are added up together, as boxes and masks need it; more are taken in pairs, whose
    gradients are added.

    Args:
        grads: per pooling (R, h, w, C), contiguous, float32, float16 or bfloat16: the gradient of its output.
        rois: per pooling float32 (R, 5), contiguous; see `roi_align`.
        shapes: per level (N, H, W, C).
        dtype: of the features, and of the result.
        sampling: everything else, the same for both poolings.

    Returns:
        Per level (N, H, W, C). Bitwise the same in every run and on every GPU of one kind.

    Raises:
        ValueError: `max` pooling.
    """
    if sampling.mode != "avg":
        raise ValueError(f"RoIAlign backward of mode {sampling.mode!r}, expected 'avg'")
    if len(grads) > 2:
        pairs = [
            backward(grads[i : i + 2], rois[i : i + 2], shapes, dtype, sampling)
            for i in range(0, len(grads), 2)
        ]
        return [torch.stack(level).sum(0) for level in zip(*pairs, strict=True)]
    out = [torch.empty(shape, dtype=dtype, device=grads[0].device) for shape in shapes]
    sets = [(g, r) for g, r in zip(grads, rois, strict=True) if g.numel() > 0]
    if sum(level.numel() for level in out) == 0:
        return out
    if not sets:
        return [level.zero_() for level in out]
    if len(sets) == 1:
        sets.append((sets[0][0][:0], sets[0][1][:0]))
    _launch(out, sets[0], sets[1], sampling)
    return out


def _launch(
    out: list[Tensor],
    first: tuple[Tensor, Tensor],
    second: tuple[Tensor, Tensor],
    sampling: Sampling,
) -> None:
    """Lists, gather, reduce; each set is a gradient (R, h, w, C) and its RoIs."""
    shapes = [(n, h, w, c) for n, h, w, c in (level.shape for level in out)]
    N, C = shapes[0][0], shapes[0][3]
    launch = backward_launch(C, len(first[1]) + len(second[1]))
    kind = torch.promote_types(first[0].dtype, second[0].dtype)
    grads = (first[0].to(kind), second[0].to(kind))
    (_, ph1, pw1, _), (_, ph2, pw2, _) = grads[0].shape, grads[1].shape
    lists = tile_lists((first[1], second[1]), ((ph1, pw1), (ph2, pw2)), shapes, sampling, launch)
    tile, tiles = launch.tile, len(lists.begin) - 1
    partial = torch.empty((launch.slots, tile, tile, C), dtype=torch.float32, device=out[0].device)
    maps = out + out[-1:] * (MAX_LEVELS - len(out))
    blocks = triton.cdiv(C, launch.channels)
    roi_align_gather_kernel[(launch.slots + tiles, blocks)](
        *maps, partial, *grads,
        lists.weights, lists.entries, lists.begin, lists.slot, lists.slot_tile, lists.plan,
        *map_sizes(shapes), N, len(first[1]), ph1, pw1, ph2, pw2,
        lists.rows, lists.columns, launch.slots,
        C=C, TILE=tile, UNIT=lists.unit, BLOCK_C=launch.channels,
        num_warps=launch.warps,
    )  # fmt: skip
    if launch.slots > 0:
        reduce_kernel[(launch.slots, tile, blocks)](
            *maps, partial, lists.slot, lists.slot_tile, lists.plan, *map_sizes(shapes), N, C,
            TILE=tile, BLOCK_C=launch.channels, num_warps=launch.warps,
        )  # fmt: skip
