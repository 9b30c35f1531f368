"""Backward, first step: what each RoI's samples weigh on the cells of each tile, one axis at a time.

Bilinear weights and the average over samples are products of a factor along y and one along x, so a RoI's gradient
under a tile is Wyᵀ · G · Wx. The factors are made here once per RoI, axis and tile; the kernel that gathers would
otherwise make them anew for every block of channels, at more cost than its sums. All of `sampling_ratio` and
`aligned` ends here.
"""

from __future__ import annotations

import triton
import triton.language as tl

from segcli.models.roi_align.geometry import (
    bin_axis,
    cells_under,
    level_of,
    pick,
    rounded_product,
    sample_at,
)


@triton.jit
def _spans(p_rois, p_spans, i_picture, R, N, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Store the first index of a picture's RoIs and the one after the last, so that its tiles look at no others."""
    first, after = R, 0
    for i in range(0, R, BLOCK):
        i_roi = (i + tl.arange(0, BLOCK)).to(tl.int64)
        picture = tl.load(p_rois + i_roi * 5, mask=i_roi < R, other=-1.0)
        m = (picture >= 0) & (picture < N)
        m = m & (tl.where(m, picture, 0.0).to(tl.int32) == i_picture)
        first = tl.minimum(first, tl.min(tl.where(m, i_roi, R)).to(tl.int32))
        after = tl.maximum(after, tl.max(tl.where(m, i_roi + 1, 0)).to(tl.int32))
    tl.store(p_spans, first)
    tl.store(p_spans + 1, after)


@triton.jit
def _tiles_touched(first, step, count, BINS, SIZE, RATIO: tl.constexpr, TILE: tl.constexpr):  # type: ignore[no-untyped-def]
    """First and last tile along an axis that hold a cell under a sample; the last before the first if none does.

    The first sample of the first bin and the last of the last bin bound all others, rounding included.
    """
    zero = tl.full((), 0.0, tl.float32)
    start = sample_at(first, step, count, zero, zero, RATIO)
    stop = sample_at(first, step, count, BINS * 1.0 - 1.0, count - 1.0, RATIO)
    low, high = tl.where(step >= 0.0, start, stop), tl.where(step >= 0.0, stop, start)
    end = SIZE * 1.0
    m = (low <= end) & (high >= -1.0) & (count > 0.0) & (SIZE > 0)  # False for NaN
    low = tl.where(m & (low > 0.0), low, 0.0).to(tl.int32)
    high = tl.where(m & (high > 0.0), tl.minimum(high, end), 0.0).to(tl.int32)
    tile, last = tl.minimum(low, SIZE - 1) // TILE, tl.minimum(high + 1, SIZE - 1) // TILE
    return tl.where(m, tile, 1), tl.where(m, last, 0)


@triton.jit
def _samples_over(first, step, count, b_bin, b_cell, RATIO: tl.constexpr, TILE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Per bin the sample to begin with, and how many to visit so that none over the tile at `b_cell` is left out.

    The rounding of a coordinate far outside grows with its distance, hence the slack; it is bounded, as loops must be.
    """
    if RATIO > 0:
        start = b_bin * 0.0
        visits: tl.constexpr = RATIO
    else:
        spacing = step / tl.maximum(count, 1.0)  # over half a cell wherever a bin has two samples
        start = tl.floor((b_cell - 1.0 - (first + rounded_product(b_bin, step))) / spacing)
        slack = 2.0 + tl.floor(tl.minimum(tl.abs(start) * (1.0 / 1048576.0), 64.0))
        start = tl.minimum(tl.maximum(start - slack, 0.0), count)
        across = tl.ceil((TILE + 1.0) / spacing) + 2.0 * tl.max(slack) + 3.0
        visits = tl.minimum(count, across).to(tl.int32)
    return start, visits


@triton.jit
def _weights(  # type: ignore[no-untyped-def]
    first, step, count, i_bin, i_cell, SIZE, RATIO: tl.constexpr, TILE: tl.constexpr,
    BLOCK_B: tl.constexpr,
):  # fmt: skip
    """Sum over a bin's samples of their weight on each cell, divided by their number; float32 (bins, cells)."""
    b_bin = i_bin.to(tl.float32)
    b_cell = tl.min(i_cell).to(tl.float32)
    start, visits = _samples_over(first, step, count, b_bin, b_cell, RATIO, TILE)
    b_sum = tl.zeros((BLOCK_B, TILE), tl.float32)
    for i in range(0, visits):
        at = sample_at(first, step, count, b_bin, start + i, RATIO)
        low, high, upper, m = cells_under(at, SIZE)
        m = m & (start + i < count)
        b_low, b_high = tl.where(m, 1.0 - upper, 0.0), tl.where(m, upper, 0.0)
        b_sum += tl.where(low[:, None] == i_cell[None, :], b_low[:, None], 0.0)
        b_sum += tl.where(high[:, None] == i_cell[None, :], b_high[:, None], 0.0)
    return b_sum / tl.maximum(count, 1.0)


_SIZES = [
    "H0", "H1", "H2", "H3", "W0", "W1", "W2", "W3", "N", "R1", "R2", "PH1", "PW1", "PH2", "PW2", "TY", "TX",
]  # fmt: skip


@triton.jit(do_not_specialize=_SIZES)
def axis_weights_kernel(  # type: ignore[no-untyped-def]
    p_rois1, p_rois2, p_spans, p_touched, p_weights, p_bins,
    H0, H1, H2, H3, W0, W1, W2, W3, scale0, scale1, scale2, scale3, t1, t2, t3,
    N, R1, R2, PH1, PW1, PH2, PW2, TY, TX,
    RATIO: tl.constexpr, ALIGNED: tl.constexpr, TILE: tl.constexpr, UNIT: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_R: tl.constexpr,
):  # fmt: skip
    """Grid (N + R1 + R2, 2): the spans of a picture in each set, then the weights of a RoI along y and along x.

    Spans int32 (2, N, 2). Touched int32 (5, R): level · N + picture or −1, first and last tile along y, along x.
    Weights float32, per set (R, TY + TX, bins, TILE); bins int32 (R, TY + TX): the first and the last bin with any
    weight on a tile in 8 bits each, in units of `UNIT`. What no RoI touches is not written.
    """
    i_axis = tl.program_id(1)
    if tl.program_id(0) < N:
        i_picture = tl.program_id(0)
        p_rois, R = tl.where(i_axis == 0, p_rois1, p_rois2), tl.where(i_axis == 0, R1, R2)
        _spans(p_rois, p_spans + (i_axis * N + i_picture) * 2, i_picture, R, N, BLOCK_R)
        return
    i_roi = (tl.program_id(0) - N).to(tl.int64)
    R, T = R1 + R2, TY + TX
    i_own = tl.where(i_roi < R1, i_roi, i_roi - R1)
    p_roi = tl.where(i_roi < R1, p_rois1, p_rois2) + i_own * 5
    picture = tl.load(p_roi)
    if not ((picture >= 0) & (picture < N)):  # a padding row; NaN too
        tl.store(p_touched + i_roi, -1, mask=i_axis == 0)
        return
    x1, y1, x2, y2 = tl.load(p_roi + 1), tl.load(p_roi + 2), tl.load(p_roi + 3), tl.load(p_roi + 4)
    level = level_of(x1, y1, x2, y2, t1, t2, t3)
    scale = pick(level, scale0, scale1, scale2, scale3)
    SIZE = tl.where(i_axis == 0, pick(level, H0, H1, H2, H3), pick(level, W0, W1, W2, W3))
    PH, PW = tl.where(i_roi < R1, PH1, PH2), tl.where(i_roi < R1, PW1, PW2)
    BINS, ROWS = tl.where(i_axis == 0, PH, PW), tl.maximum(PH, PW)
    low, high = tl.where(i_axis == 0, y1, x1), tl.where(i_axis == 0, y2, x2)
    first, step, count = bin_axis(low, high, scale, BINS, RATIO, ALIGNED)
    tile, last = _tiles_touched(first, step, count, BINS, SIZE, RATIO, TILE)
    tl.store(p_touched + i_roi, level * N + picture.to(tl.int32), mask=i_axis == 0)
    tl.store(p_touched + R * (1 + 2 * i_axis) + i_roi, tile)
    tl.store(p_touched + R * (2 + 2 * i_axis) + i_roi, last)

    o_axis = tl.where(i_axis == 0, 0, TY)
    set_start = tl.where(i_roi < R1, 0, R1.to(tl.int64) * T * tl.maximum(PH1, PW1))
    for i_tile in range(tile, last + 1):
        i_cell = i_tile * TILE + tl.arange(0, TILE)
        first_bin, last_bin = BINS, -1
        o_row = set_start + (i_own * T + o_axis + i_tile) * ROWS
        for i in range(0, BINS, BLOCK_B):
            i_bin = i + tl.arange(0, BLOCK_B)
            b_weight = _weights(first, step, count, i_bin, i_cell, SIZE, RATIO, TILE, BLOCK_B)
            m_any = (tl.sum(b_weight, 1) > 0.0) & (i_bin < BINS)
            first_bin = tl.minimum(first_bin, tl.min(tl.where(m_any, i_bin, BINS)))
            last_bin = tl.maximum(last_bin, tl.max(tl.where(m_any, i_bin, -1)))
            o_store = (o_row + i_bin)[:, None] * TILE + tl.arange(0, TILE)[None, :]
            tl.store(p_weights + o_store, b_weight, mask=(i_bin < BINS)[:, None])
        b_bins = tl.where(last_bin < 0, 1, first_bin // UNIT + (last_bin // UNIT) * 256)
        tl.store(p_bins + i_roi * T + o_axis + i_tile, b_bins)
