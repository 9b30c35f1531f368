"""RoIAlign backward in Triton by atomic additions: no lists of RoIs to make, but sums in whatever order they arrive.

Not the default: the last bits differ from run to run, the sums need a zeroed float32 buffer per level, and every bin
adds up to 16 times where the gathering form stores once. It is the plain statement of the gradient, has no limit on
the number of poolings, and is the quicker one for a handful of RoIs.
"""

from __future__ import annotations

import torch
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
from segcli.models.roi_align.launch import atomic_launch
from segcli.models.roi_align.sampling import MAX_LEVELS, Sampling


@triton.jit
def _add_sample(b_grad, p_row0, p_row1, x_low, x_high, x_upper, y_upper, m_bins, m_c, C):  # type: ignore[no-untyped-def]
    """Add one sample's share of each bin's gradient, float32 (bins, channels), to the four cells around it.

    `p_row0`, `p_row1` point at the channels of the first cell of the two rows of cells.
    """
    o_low, o_high = (x_low * C)[:, None], (x_high * C)[:, None]
    m = m_bins[:, None] & m_c[None, :]
    w_0, w_1 = (1.0 - x_upper)[:, None], x_upper[:, None]
    tl.atomic_add(p_row0 + o_low, b_grad * (w_0 * (1.0 - y_upper)), mask=m, sem="relaxed")
    tl.atomic_add(p_row0 + o_high, b_grad * (w_1 * (1.0 - y_upper)), mask=m, sem="relaxed")
    tl.atomic_add(p_row1 + o_low, b_grad * (w_0 * y_upper), mask=m, sem="relaxed")
    tl.atomic_add(p_row1 + o_high, b_grad * (w_1 * y_upper), mask=m, sem="relaxed")


_SIZES = ["H0", "H1", "H2", "H3", "W0", "W1", "W2", "W3", "N"]


@triton.jit(do_not_specialize=_SIZES)
def roi_align_atomic_kernel(  # type: ignore[no-untyped-def]
    p_map0, p_map1, p_map2, p_map3, p_rois, p_grad,
    H0, H1, H2, H3, W0, W1, W2, W3, scale0, scale1, scale2, scale3, t1, t2, t3, N, C,
    PH: tl.constexpr, PW: tl.constexpr, RATIO: tl.constexpr, ALIGNED: tl.constexpr,
    BLOCK_W: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """As the forward kernel; maps float32 (N, H, W, C), added to; pooled gradient (R, PH, PW, C)."""
    BLOCKS_W: tl.constexpr = (PW + BLOCK_W - 1) // BLOCK_W
    i_row, i_w = tl.program_id(0) // BLOCKS_W, tl.program_id(0) % BLOCKS_W
    i_roi, i_ph = (i_row // PH).to(tl.int64), i_row % PH
    picture = tl.load(p_rois + i_roi * 5)
    if not ((picture >= 0) & (picture < N)):  # a padding row; NaN too
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

    i_pw = i_w * BLOCK_W + tl.arange(0, BLOCK_W)
    i_c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    m_pw, m_c = i_pw < PW, i_c < C
    p_load = p_grad + ((i_roi * PH + i_ph) * PW * C + i_pw * C)[:, None] + i_c[None, :]
    b_grad = tl.load(p_load, mask=m_pw[:, None] & m_c[None, :], other=0.0).to(tl.float32)
    b_grad = b_grad / tl.maximum(y_count * x_count, 1.0)
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
            _add_sample(b_grad, p_row0, p_row1, x_low, x_high, x_upper, y_upper, m, m_c, C)


def backward(
    grads: list[Tensor],
    rois: list[Tensor],
    shapes: list[tuple[int, int, int, int]],
    dtype: torch.dtype,
    sampling: Sampling,
) -> list[Tensor]:
    """As `backward_kernel.backward`, for any number of poolings; the order of sums is not fixed.

    Args:
        grads: per pooling (R, h, w, C), contiguous, float32, float16 or bfloat16: the gradient of its output.
        rois: per pooling float32 (R, 5), contiguous; see `roi_align`.
        shapes: per level (N, H, W, C).
        dtype: of the features, and of the result.
        sampling: everything else, the same for all poolings.

    Returns:
        Per level (N, H, W, C).

    Raises:
        ValueError: `max` pooling.
    """
    if sampling.mode != "avg":
        raise ValueError(f"RoIAlign backward of mode {sampling.mode!r}, expected 'avg'")
    out = [torch.zeros(shape, dtype=torch.float32, device=grads[0].device) for shape in shapes]
    maps = out + out[-1:] * (MAX_LEVELS - len(out))
    N, C = shapes[0][0], shapes[0][3]
    for grad, boxes in zip(grads, rois, strict=True):
        if grad.numel() == 0:
            continue
        R, h, w, _ = grad.shape
        launch = atomic_launch(w, C)
        grid = (R * h * triton.cdiv(w, launch.bins), triton.cdiv(C, launch.channels))
        roi_align_atomic_kernel[grid](
            *maps, boxes, grad,
            *(m.shape[1] for m in maps), *(m.shape[2] for m in maps),
            *sampling.padded_scales(), *sampling.padded_thresholds(), N, C,
            PH=h, PW=w, RATIO=sampling.ratio, ALIGNED=sampling.aligned,
            BLOCK_W=launch.bins, BLOCK_C=launch.channels,
            num_warps=launch.warps, maxnreg=launch.registers,
        )  # fmt: skip
    return [level.to(dtype) for level in out]
