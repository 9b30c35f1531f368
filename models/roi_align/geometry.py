"""What the Triton kernels share: from a box to its pyramid level, its samples, and the cells under a sample.

Everything here is float32 and rounds exactly where `reference.py` rounds, because a coordinate that is off by one bit
at x = 300 moves a value by more than 1e-5. A GPU would fuse `a * b + c` into one instruction with one rounding;
`rounded_product` keeps the product's own. Integers that meet a stride are int64. Conditions of one value do not meet
conditions of many with `&`: the interpreter spreads a bool as a number.

Variables: `i_` index, `o_` offset, `m_` mask, `p_` pointer, `b_` value, capitals sizes.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def rounded_product(a, b):  # type: ignore[no-untyped-def]  # Triton's own types; so below
    """The product rounded to float32: a fused multiply-add whose addend is nothing cannot be fused any further."""
    return tl.fma(a, b, 0.0)


@triton.jit
def pick(level, a, b, c, d):  # type: ignore[no-untyped-def]
    """The argument of a level; pointers or numbers."""
    return tl.where(level == 0, a, tl.where(level == 1, b, tl.where(level == 2, c, d)))


@triton.jit
def level_of(x1, y1, x2, y2, t1, t2, t3):  # type: ignore[no-untyped-def]
    """Index of the pyramid level by the box's area; a threshold that is NaN is never reached, nor is any by NaN."""
    area = (x2 - x1) * (y2 - y1)
    return (area >= t1).to(tl.int32) + (area >= t2).to(tl.int32) + (area >= t3).to(tl.int32)


@triton.jit
def bin_axis(low, high, scale, BINS, RATIO: tl.constexpr, ALIGNED: tl.constexpr):  # type: ignore[no-untyped-def]
    """One axis of a box in cells of the feature map.

    Returns:
        First edge, length of a bin, and samples per bin; float32. No samples in a degenerate box if adaptive.
    """
    shift = 0.5 if ALIGNED else 0.0
    first = rounded_product(low, scale) - shift
    length = rounded_product(high, scale) - shift - first
    if not ALIGNED:
        length = tl.where(length < 1.0, 1.0, length)  # NaN stays NaN
    step = tl.div_rn(length, BINS * 1.0)
    if RATIO > 0:
        count = tl.full((), RATIO, tl.float32)
    else:
        count = tl.where((step > 0.0) & (step < float("inf")), tl.ceil(step), 0.0)
    return first, step, count


@triton.jit
def sample_at(first, step, count, i_bin, i_sample, RATIO: tl.constexpr):  # type: ignore[no-untyped-def]
    """Coordinate of a sample; all float32, `i_sample` may be fractional of type only."""
    inside = rounded_product(i_sample + 0.5, step)
    EXACT: tl.constexpr = (
        RATIO == 1 or RATIO == 2 or RATIO == 4
    )  # then fusing with what follows changes nothing
    inside = inside * (1.0 / RATIO) if EXACT else tl.div_rn(inside, count)
    return (first + rounded_product(i_bin, step)) + inside


@triton.jit
def first_sample_inside(first, step, count, i_bin, RATIO: tl.constexpr):  # type: ignore[no-untyped-def]
    """A whole number of samples of an adaptive bin that lie before the map for sure, so that a loop may skip them.

    A box that no one clipped may have a billion samples per bin, of which the map is under a few hundred.
    """
    if RATIO > 0:
        skipped = i_bin * 0.0
    else:
        spacing = step / tl.maximum(count, 1.0)
        skipped = tl.floor((-1.0 - (first + i_bin * step)) / spacing) - 2.0
        skipped = tl.minimum(tl.maximum(skipped, 0.0), count)
    return skipped


@triton.jit
def samples_inside(step, count, SIZE, RATIO: tl.constexpr):  # type: ignore[no-untyped-def]
    """How many samples of one bin a loop must visit: all of them, or as many as can lie on the map; int32."""
    if RATIO > 0:
        visits: tl.constexpr = RATIO
    else:
        spacing = step / tl.maximum(count, 1.0)  # over half a cell wherever a bin has two samples
        across = tl.ceil((SIZE + 1.0) / spacing) + 5.0
        visits = tl.minimum(count, across).to(tl.int32)
    return visits


@triton.jit
def cells_under(at, SIZE):  # type: ignore[no-untyped-def]
    """The two cells around a sample along one axis.

    Returns:
        Lower and upper cell (int32), the upper one's weight (float32), and whether the sample counts: it does not
        when it lies more than a cell outside the map, or is NaN.
    """
    end = tl.where(SIZE > 0, SIZE * 1.0, -2.0)  # nothing lies on a map without cells
    m_inside = (at >= -1.0) & (at <= end)
    at = tl.where(m_inside, at, 0.0)
    at = tl.where(at > 0.0, at, 0.0)
    low = tl.minimum(at.to(tl.int32), SIZE - 1)
    upper = tl.where(low >= SIZE - 1, 0.0, at - low.to(tl.float32))
    return low, tl.minimum(low + 1, SIZE - 1), upper, m_inside
