"""Backward, second step: for each tile of each map the RoIs that touch it, in rising order, and the cut of long lists.

Count, scan, fill: two passes over the RoIs of a tile's picture, so that a RoI's place in its list depends on nothing
but the RoIs. Lists longer than a limit are cut into chunks that are gathered apart, each into a slot of scratch
memory, and added up in order: else the time would be that of the tile under the most crowded object. Grids and
buffers depend on shapes alone, so nothing waits for the GPU and a CUDA graph can hold all of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from segcli.models.roi_align.backward_weights import axis_weights_kernel
from segcli.models.roi_align.geometry import pick
from segcli.models.roi_align.launch import BackwardLaunch
from segcli.models.roi_align.sampling import MAX_LEVELS, Sampling

_SCAN = 256  # RoIs that a tile looks at in one step
_PLAN = 2048  # tiles that the plan takes in one step


@triton.jit
def tile_place(i_tile, H0, H1, H2, H3, W0, W1, W2, W3, N, TILE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Level, picture, and row and column of a tile; tiles are numbered by level, picture, row, column."""
    n0 = N * tl.cdiv(H0, TILE) * tl.cdiv(W0, TILE)
    n1 = N * tl.cdiv(H1, TILE) * tl.cdiv(W1, TILE) + n0
    n2 = N * tl.cdiv(H2, TILE) * tl.cdiv(W2, TILE) + n1
    level = (i_tile >= n0).to(tl.int32) + (i_tile >= n1).to(tl.int32) + (i_tile >= n2).to(tl.int32)
    i_tile -= pick(level, 0, n0, n1, n2)
    down = tl.cdiv(pick(level, H0, H1, H2, H3), TILE)
    across = tl.cdiv(pick(level, W0, W1, W2, W3), TILE)
    return level, i_tile // (down * across), i_tile // across % down, i_tile % across


@triton.jit
def _touching(p_touched, i_roi, after, R, plane, i_y, i_x):  # type: ignore[no-untyped-def]
    """Which of a block of RoIs touch a tile."""
    m = i_roi < after
    m = m & (tl.load(p_touched + i_roi, mask=m, other=-1) == plane)
    p_touched += i_roi
    m = m & (tl.load(p_touched + R, mask=m, other=1) <= i_y)
    m = m & (tl.load(p_touched + R * 2, mask=m, other=0) >= i_y)
    m = m & (tl.load(p_touched + R * 3, mask=m, other=1) <= i_x)
    return m & (tl.load(p_touched + R * 4, mask=m, other=0) >= i_x)


_SIZES = ["H0", "H1", "H2", "H3", "W0", "W1", "W2", "W3", "N", "R1", "R2", "TY", "TX"]


@triton.jit(do_not_specialize=_SIZES)
def count_kernel(  # type: ignore[no-untyped-def]
    p_touched, p_spans, p_count, H0, H1, H2, H3, W0, W1, W2, W3, N, R1, R2,
    TILE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Grid (tiles). Count int32 (tiles): how many RoIs touch each."""
    level, i_picture, i_y, i_x = tile_place(
        tl.program_id(0), H0, H1, H2, H3, W0, W1, W2, W3, N, TILE
    )
    b_count = tl.zeros((BLOCK,), tl.int32)
    for i_set in tl.static_range(2):
        p_span = p_spans + (i_set * N + i_picture) * 2
        after = tl.load(p_span + 1) + R1 * i_set
        for i in range(tl.load(p_span) + R1 * i_set, after, BLOCK):
            i_roi = (i + tl.arange(0, BLOCK)).to(tl.int64)
            m = _touching(p_touched, i_roi, after, R1 + R2, level * N + i_picture, i_y, i_x)
            b_count += m.to(tl.int32)
    tl.store(p_count + tl.program_id(0), tl.sum(b_count))


@triton.jit(do_not_specialize=["TILES", "SLOTS", "shortest"])
def plan_kernel(p_count, p_begin, p_slot, p_plan, TILES, SLOTS, shortest, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Grid (1). Where each tile's list begins, and which slots its chunks have; the longest uncut list.

    Begin int64 (tiles + 1) and slot int32 (tiles + 1) rise; a list that is not cut has no slot. Plan int32 (2): the
    length of a chunk, `shortest` doubled until all chunks have a slot, and the slots used.
    """
    length, used = shortest, SLOTS + 1
    while used > SLOTS:
        used = 0
        for i in range(0, TILES, BLOCK):
            i_tile = i + tl.arange(0, BLOCK)
            count = tl.load(p_count + i_tile, mask=i_tile < TILES, other=0)
            used += tl.sum(tl.where(count > length, tl.cdiv(count, length), 0))
        length = tl.where(used > SLOTS, length * 2, length)
    tl.store(p_plan, length)
    tl.store(p_plan + 1, used)

    begin, slot = tl.full((), 0, tl.int64), tl.full((), 0, tl.int32)
    tl.store(p_begin, begin)
    tl.store(p_slot, slot)
    for i in range(0, TILES, BLOCK):
        i_tile = i + tl.arange(0, BLOCK)
        count = tl.load(p_count + i_tile, mask=i_tile < TILES, other=0)
        chunks = tl.where(count > length, tl.cdiv(count, length), 0)
        tl.store(p_begin + 1 + i_tile, begin + tl.cumsum(count.to(tl.int64)), mask=i_tile < TILES)
        tl.store(p_slot + 1 + i_tile, slot + tl.cumsum(chunks), mask=i_tile < TILES)
        begin += tl.sum(count.to(tl.int64))
        slot += tl.sum(chunks)


@triton.jit(do_not_specialize=_SIZES)
def fill_kernel(  # type: ignore[no-untyped-def]
    p_touched, p_spans, p_bins, p_begin, p_slot, p_list, p_slot_tile,
    H0, H1, H2, H3, W0, W1, W2, W3, N, R1, R2, TY, TX,
    TILE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Grid (tiles). List int64: a RoI in the lower half, the first and last bin along y and x in the upper bytes."""
    i_tile = tl.program_id(0)
    level, i_picture, i_y, i_x = tile_place(i_tile, H0, H1, H2, H3, W0, W1, W2, W3, N, TILE)
    o_list = tl.load(p_begin + i_tile)
    if tl.load(p_begin + i_tile + 1) == o_list:
        return
    for i_slot in range(tl.load(p_slot + i_tile), tl.load(p_slot + i_tile + 1)):
        tl.store(p_slot_tile + i_slot, i_tile)
    for i_set in tl.static_range(2):
        p_span = p_spans + (i_set * N + i_picture) * 2
        after = tl.load(p_span + 1) + R1 * i_set
        for i in range(tl.load(p_span) + R1 * i_set, after, BLOCK):
            i_roi = (i + tl.arange(0, BLOCK)).to(tl.int64)
            m = _touching(p_touched, i_roi, after, R1 + R2, level * N + i_picture, i_y, i_x)
            y_bins = tl.load(p_bins + i_roi * (TY + TX) + i_y, mask=m, other=0).to(tl.int64)
            x_bins = tl.load(p_bins + i_roi * (TY + TX) + TY + i_x, mask=m, other=0).to(tl.int64)
            place = o_list + tl.cumsum(m.to(tl.int32)) - 1
            tl.store(p_list + place, i_roi | (y_bins << 32) | (x_bins << 48), mask=m)
            o_list += tl.sum(m.to(tl.int32))


@dataclass(frozen=True)
class TileLists:
    """What the gathering kernel reads; see the kernels for what each tensor holds.

    Attributes:
        weights: float32, per set (R, rows + columns of tiles, bins, tile).
        entries: int64, the lists one after another.
        begin: int64 (tiles + 1).
        slot: int32 (tiles + 1).
        slot_tile: int32 (slots,), the tile of each slot in use.
        plan: int32 (2,), length of a chunk and slots in use.
        rows: of tiles of the highest map; the columns' weights follow.
        columns: of tiles of the widest map.
        unit: bins that one step of the numbers in `entries` stands for.
    """

    weights: Tensor
    entries: Tensor
    begin: Tensor
    slot: Tensor
    slot_tile: Tensor
    plan: Tensor
    rows: int
    columns: int
    unit: int


def map_sizes(shapes: list[tuple[int, int, int, int]]) -> tuple[int, ...]:
    """Heights, then widths, of `MAX_LEVELS` levels; a level that is not there has no cells."""
    missing = (0,) * (MAX_LEVELS - len(shapes))
    return (*(s[1] for s in shapes), *missing, *(s[2] for s in shapes), *missing)


def tile_lists(
    rois: tuple[Tensor, Tensor],
    sizes: tuple[tuple[int, int], tuple[int, int]],
    shapes: list[tuple[int, int, int, int]],
    sampling: Sampling,
    launch: BackwardLaunch,
) -> TileLists:
    """Launch the kernels; at least one RoI and one cell.

    Args:
        rois: two sets, float32 (R1, 5) and (R2, 5), contiguous; the second may be empty.
        sizes: (h, w) bins of each set.
        shapes: per level (N, H, W, C).
        sampling: see `Sampling`.
        launch: the tile's size, the shortest list that is cut, and the number of slots.
    """
    N, R1, R2, tile = shapes[0][0], len(rois[0]), len(rois[1]), launch.tile
    down = [triton.cdiv(s[1], tile) for s in shapes]
    across = [triton.cdiv(s[2], tile) for s in shapes]
    in_picture = [y * x for y, x in zip(down, across, strict=True)]
    rows, columns, tiles = max(down), max(across), N * sum(in_picture)
    bins1, bins2 = max(sizes[0]), max(sizes[1])
    unit = triton.cdiv(max(bins1, bins2), 256)

    def ints(*shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=rois[0].device)

    spans, touched, bins = ints(2, N, 2), ints(5, R1 + R2), ints(R1 + R2, rows + columns)
    values = (rows + columns) * tile * (R1 * bins1 + R2 * bins2)
    weights = ints(values, dtype=torch.float32)
    axis_weights_kernel[(N + R1 + R2, 2)](
        *rois, spans, touched, weights, bins,
        *map_sizes(shapes), *sampling.padded_scales(), *sampling.padded_thresholds(),
        N, R1, R2, *sizes[0], *sizes[1], rows, columns,
        RATIO=sampling.ratio, ALIGNED=sampling.aligned, TILE=tile, UNIT=unit,
        BLOCK_B=16, BLOCK_R=_SCAN, num_warps=1,
    )  # fmt: skip
    count, begin, slot = ints(tiles), ints(tiles + 1, dtype=torch.int64), ints(tiles + 1)
    plan, slot_tile = ints(2), ints(launch.slots)
    # a RoI lies on one level of one picture, so it is in at most as many lists as that has tiles
    entries = ints((R1 + R2) * max(in_picture), dtype=torch.int64)
    place = (*map_sizes(shapes), N, R1, R2)
    count_kernel[(tiles,)](touched, spans, count, *place, TILE=tile, BLOCK=_SCAN, num_warps=4)
    plan_kernel[(1,)](
        count, begin, slot, plan, tiles, launch.slots, launch.chunk, BLOCK=_PLAN, num_warps=8
    )
    fill_kernel[(tiles,)](
        touched, spans, bins, begin, slot, entries, slot_tile, *place, rows, columns,
        TILE=tile, BLOCK=_SCAN, num_warps=4,
    )  # fmt: skip
    return TileLists(weights, entries, begin, slot, slot_tile, plan, rows, columns, unit)
