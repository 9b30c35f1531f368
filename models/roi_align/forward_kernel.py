"""RoIAlign forward in Triton: every RoI of every picture on every pyramid level in one launch.

A program makes one row of bins of one RoI for a block of channels. Features are channels-last, so that the channels
under one cell are one run of memory that a warp reads in 16-byte pieces; the box's geometry is computed once per
program and not once per output. Sums are float32 whatever the features' type.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from segcli.models.roi_align.geometry import (
    bin_axis,
    cells_under,
    first_sample_inside,
    level_of,
    pick,
    sample_at,
    samples_inside,
)
from segcli.models.roi_align.launch import forward_launch
from segcli.models.roi_align.sampling import MAX_LEVELS, Sampling


@triton.jit
def _add_sample(b_acc, p_row0, p_row1, x_low, x_high, x_upper, y_upper, m_bins, m_c, C):  # type: ignore[no-untyped-def]
    """`b_acc` plus the bilinear value at one sample of each bin, float32 (bins, channels).

    `p_row0`, `p_row1` point at the channels of the first cell of the two rows of cells.
    """
    o_low, o_high = (x_low * C)[:, None], (x_high * C)[:, None]
    m = m_bins[:, None] & m_c[None, :]
    b_00 = tl.load(p_row0 + o_low, mask=m, other=0.0).to(tl.float32)
    b_01 = tl.load(p_row0 + o_high, mask=m, other=0.0).to(tl.float32)
    b_10 = tl.load(p_row1 + o_low, mask=m, other=0.0).to(tl.float32)
    b_11 = tl.load(p_row1 + o_high, mask=m, other=0.0).to(tl.float32)
    w_0, w_1 = (1.0 - x_upper)[:, None], x_upper[:, None]
    b_acc += b_00 * (w_0 * (1.0 - y_upper))
    b_acc += b_01 * (w_1 * (1.0 - y_upper))
    b_acc += b_10 * (w_0 * y_upper)
    b_acc += b_11 * (w_1 * y_upper)
    return b_acc


_SIZES = ["H0", "H1", "H2", "H3", "W0", "W1", "W2", "W3", "N"]


@triton.jit(do_not_specialize=_SIZES)  # else every shape of picture would compile anew
def roi_align_forward_kernel(  # type: ignore[no-untyped-def]
    p_map0, p_map1, p_map2, p_map3, p_rois, p_out,
    H0, H1, H2, H3, W0, W1, W2, W3, scale0, scale1, scale2, scale3, t1, t2, t3, N, C,
    PH: tl.constexpr, PW: tl.constexpr, RATIO: tl.constexpr, ALIGNED: tl.constexpr,
    MAX: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Grid (R · PH · ⌈PW / BLOCK_W⌉, ⌈C / BLOCK_C⌉). Maps (N, H, W, C), RoIs float32 (R, 5), out (R, PH, PW, C)."""
    BLOCKS_W: tl.constexpr = (PW + BLOCK_W - 1) // BLOCK_W
    i_row, i_w = tl.program_id(0) // BLOCKS_W, tl.program_id(0) % BLOCKS_W
    i_roi, i_ph = (i_row // PH).to(tl.int64), i_row % PH
    i_pw = i_w * BLOCK_W + tl.arange(0, BLOCK_W)
    i_c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    m_pw, m_c = i_pw < PW, i_c < C
    p_store = p_out + ((i_roi * PH + i_ph) * PW * C + i_pw * C)[:, None] + i_c[None, :]
    m_store = m_pw[:, None] & m_c[None, :]

    picture = tl.load(p_rois + i_roi * 5)
    if not ((picture >= 0) & (picture < N)):  # a padding row; NaN too
        tl.store(p_store, tl.zeros((BLOCK_W, BLOCK_C), p_out.dtype.element_ty), mask=m_store)
        return
    x1, y1 = tl.load(p_rois + i_roi * 5 + 1), tl.load(p_rois + i_roi * 5 + 2)
    x2, y2 = tl.load(p_rois + i_roi * 5 + 3), tl.load(p_rois + i_roi * 5 + 4)
    level = level_of(x1, y1, x2, y2, t1, t2, t3)
    H, W = pick(level, H0, H1, H2, H3), pick(level, W0, W1, W2, W3)
    scale = pick(level, scale0, scale1, scale2, scale3)
    p_map = pick(level, p_map0, p_map1, p_map2, p_map3)
    p_map += picture.to(tl.int64) * H * W * C
    y_first, y_step, y_count = bin_axis(y1, y2, scale, PH, RATIO, ALIGNED)
    x_first, x_step, x_count = bin_axis(x1, x2, scale, PW, RATIO, ALIGNED)

    b_acc = tl.full((BLOCK_W, BLOCK_C), float("-inf") if MAX else 0.0, tl.float32)
    b_seen = tl.zeros((BLOCK_W,), tl.float32)  # samples on the map
    b_none = tl.zeros((BLOCK_W, BLOCK_C), tl.float32)
    b_ph, b_pw = i_ph.to(tl.float32), i_pw.to(tl.float32)
    y_skip = first_sample_inside(y_first, y_step, y_count, b_ph, RATIO)
    x_skip = first_sample_inside(x_first, x_step, x_count, b_pw, RATIO)
    for i_y in range(0, samples_inside(y_step, y_count, H, RATIO)):
        at_y = sample_at(y_first, y_step, y_count, b_ph, y_skip + i_y, RATIO)
        y_low, y_high, y_upper, m_y = cells_under(at_y, H)
        x_end = tl.where(m_y & (y_skip + i_y < y_count), x_count, 0.0)
        p_row0 = p_map + y_low.to(tl.int64) * W * C + i_c[None, :]
        p_row1 = p_map + y_high.to(tl.int64) * W * C + i_c[None, :]
        for i_x in range(0, samples_inside(x_step, x_count, W, RATIO)):
            at_x = sample_at(x_first, x_step, x_count, b_pw, x_skip + i_x, RATIO)
            x_low, x_high, x_upper, m_x = cells_under(at_x, W)
            m = m_pw & m_x & (x_skip + i_x < x_end)
            if MAX:
                b = _add_sample(b_none, p_row0, p_row1, x_low, x_high, x_upper, y_upper, m, m_c, C)
                b = tl.where(m[:, None], b, float("-inf"))
                b_acc = tl.maximum(b_acc, b, tl.PropagateNan.ALL)
                b_seen += m.to(tl.float32)
            else:
                b_acc = _add_sample(
                    b_acc, p_row0, p_row1, x_low, x_high, x_upper, y_upper, m, m_c, C
                )
    b_samples = y_count * x_count
    if MAX:  # a sample outside the map has the value 0
        m_outside = (b_seen < b_samples)[:, None]
        b_acc = tl.where(m_outside, tl.maximum(b_acc, b_none, tl.PropagateNan.ALL), b_acc)
    else:
        b_acc = b_acc / tl.maximum(b_samples, 1.0)
    b_out = tl.where(b_samples > 0.0, b_acc, 0.0)
    tl.store(p_store, b_out.to(p_out.dtype.element_ty), mask=m_store)


def forward(
    features: list[Tensor], rois: Tensor, output_size: tuple[int, int], sampling: Sampling
) -> Tensor:
    """Launch the kernel.

    Args:
        features: per level (N, H, W, C), contiguous, all of one type: float32, float16 or bfloat16.
        rois: float32 (R, 5), contiguous; see `roi_align`.
        output_size: (h, w) bins.
        sampling: everything else.

    Returns:
        (R, h, w, C) in the features' type.
    """
    N, C = features[0].shape[0], features[0].shape[3]
    out = features[0].new_empty((len(rois), *output_size, C))
    if out.numel() == 0:
        return out
    plain = sampling.ratio > 0 and sampling.mode == "avg"
    launch = forward_launch(output_size[1], C, features[0].dtype, plain=plain)
    maps = features + features[-1:] * (MAX_LEVELS - len(features))
    blocks_w, blocks_c = triton.cdiv(output_size[1], launch.bins), triton.cdiv(C, launch.channels)
    roi_align_forward_kernel[(len(rois) * output_size[0] * blocks_w, blocks_c)](
        *maps, rois, out,
        *(m.shape[1] for m in maps), *(m.shape[2] for m in maps),
        *sampling.padded_scales(), *sampling.padded_thresholds(), N, C,
        PH=output_size[0], PW=output_size[1], RATIO=sampling.ratio, ALIGNED=sampling.aligned,
        MAX=sampling.mode == "max", BLOCK_W=launch.bins, BLOCK_C=launch.channels,
        num_warps=launch.warps, maxnreg=launch.registers,
    )  # fmt: skip
    return out
