"""From uint8 pictures to the network's input in one launch: resize, normalise, pad, convert, in the network's layout.

The same as normalising, `F.interpolate` (bilinear, no antialiasing, corners not aligned, scale recomputed), padding
with zeros and converting, in this order and in float32. Normalised values come from a table of all 256, so they are
the same bits; the interpolation may differ by a rounding where a product and a sum are fused. The picture travels to
the GPU as bytes, a quarter of what float32 takes, and no float32 copy of it is ever made.

It has run in Triton's interpreter and been compiled for sm_80 and sm_90; `scripts/gpu_check.sh` runs it on a GPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024  # values of a row that a program makes
_FIELDS = 5  # first byte, H, W, h, w


@triton.jit
def _cells(i_out, scale, SIZE):  # type: ignore[no-untyped-def]
    """Lower and upper cell under an output pixel, and the upper one's weight (ATen's UpSample.h).

    Compilers make one instruction with one rounding of product and sum there. In float64 both are exact, so here too
    there is one rounding, wherever this runs; at x = 1000 another bit would move a value by 1e-4.
    """
    at = ((i_out.to(tl.float64) + 0.5) * scale.to(tl.float64) - 0.5).to(tl.float32)
    at = tl.maximum(at, 0.0)
    low = tl.minimum(at.to(tl.int32), SIZE - 1)
    return low, tl.minimum(low + 1, SIZE - 1), tl.minimum(tl.maximum(at - low, 0.0), 1.0)


@triton.jit(do_not_specialize=["HEIGHT", "WIDTH"])
def preprocess_kernel(  # type: ignore[no-untyped-def]
    p_bytes, p_table, p_values, p_out, HEIGHT, WIDTH, BLOCK: tl.constexpr
):
    """Grid (⌈3 · WIDTH / BLOCK⌉, HEIGHT, N). Table int64 (N, 5), values float32 (256, 3), out (N, HEIGHT, WIDTH, 3)."""
    i_y, i_picture = tl.program_id(1), tl.program_id(2).to(tl.int64)
    o_row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    i_x, i_channel = o_row // 3, o_row % 3
    first = tl.load(p_table + i_picture * 5)
    H, W = (
        tl.load(p_table + i_picture * 5 + 1).to(tl.int32),
        tl.load(p_table + i_picture * 5 + 2).to(tl.int32),
    )
    h, w = (
        tl.load(p_table + i_picture * 5 + 3).to(tl.int32),
        tl.load(p_table + i_picture * 5 + 4).to(tl.int32),
    )
    y0, y1, b_y = _cells(i_y, tl.div_rn(H * 1.0, h * 1.0), H)
    x0, x1, b_x = _cells(i_x, tl.div_rn(W * 1.0, w * 1.0), W)
    m_inside = (i_x < w) & (i_y < h)
    p_upper = p_bytes + first + y0.to(tl.int64) * W * 3
    p_lower = p_bytes + first + y1.to(tl.int64) * W * 3
    o_left, o_right = x0 * 3 + i_channel, x1 * 3 + i_channel
    b_00 = _value(p_upper + o_left, p_values, i_channel, m_inside)
    b_01 = _value(p_upper + o_right, p_values, i_channel, m_inside)
    b_10 = _value(p_lower + o_left, p_values, i_channel, m_inside)
    b_11 = _value(p_lower + o_right, p_values, i_channel, m_inside)
    b_upper = (1.0 - b_x) * b_00 + b_x * b_01
    b_lower = (1.0 - b_x) * b_10 + b_x * b_11
    b = tl.where(m_inside, (1.0 - b_y) * b_upper + b_y * b_lower, 0.0)
    p_store = p_out + (i_picture * HEIGHT + i_y) * WIDTH * 3 + o_row
    tl.store(p_store, b.to(p_out.dtype.element_ty), mask=o_row < WIDTH * 3)


@triton.jit
def _value(p_byte, p_values, i_channel, m):  # type: ignore[no-untyped-def]
    """The normalised value of a byte; the table lies in the processor's nearest cache."""
    b = tl.load(p_byte, mask=m, other=0).to(tl.int32)
    return tl.load(p_values + b * 3 + i_channel, mask=m, other=0.0)


def preprocess(pixels: Tensor, table: Tensor, values: Tensor, batch: Tensor) -> Tensor:
    """Fill a batch, padding and all; nothing waits for the device.

    Args:
        pixels: uint8 (B,), the pictures' bytes (H, W, 3) RGB, one behind the other.
        table: int64 (N, 5), see `layout`; on the pixels' device.
        values: float32 (256, 3), see `normalised_values`; likewise.
        batch: (N, 3, HEIGHT, WIDTH), channels last, float32, float16 or bfloat16; is overwritten.

    Returns:
        The batch.

    Raises:
        ValueError: the batch lies otherwise, or the table is not for it.
    """
    N, channels, height, width = batch.shape
    if channels != 3 or not batch.is_contiguous(memory_format=torch.channels_last):
        raise ValueError(
            f"a batch of shape {tuple(batch.shape)}, expected 3 channels, channels last"
        )
    if tuple(table.shape) != (N, _FIELDS) or table.dtype != torch.int64:
        raise ValueError(f"a table of shape {tuple(table.shape)}, expected int64 ({N}, {_FIELDS})")
    if batch.numel() == 0:
        return batch
    with torch.cuda.device(batch.device) if batch.is_cuda else contextlib.nullcontext():
        preprocess_kernel[(triton.cdiv(3 * width, _BLOCK), height, N)](
            pixels, table, values, batch.permute(0, 2, 3, 1), height, width,
            BLOCK=_BLOCK, num_warps=4,
        )  # fmt: skip
    return batch


def layout(sizes: Sequence[tuple[int, int]], resized: Sequence[tuple[int, int]]) -> Tensor:
    """The kernel's table: where each picture begins and what becomes of it, int64 (N, 5) on the CPU.

    Args:
        sizes: per picture (H, W) of its bytes.
        resized: per picture (h, w) after resizing, at least 1 × 1 and within the batch.
    """
    rows, first = [], 0
    for (H, W), (h, w) in zip(sizes, resized, strict=True):
        rows.append((first, H, W, h, w))
        first += H * W * 3
    return torch.tensor(rows, dtype=torch.int64).view(-1, _FIELDS)


def normalised_values(mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """What each byte becomes in each channel, float32 (256, 3) on the CPU; as `segcli.preprocess.prepare` has it."""
    pixels = torch.arange(256, dtype=torch.float32)[:, None] / 255.0
    return (pixels - torch.tensor(mean)) / torch.tensor(std)
