"""Non-maximum suppression in Triton: two launches for all sets of boxes together, and nothing to wait for.

The first writes, for each box, one bit per later box that it would remove. The second walks through a set in steps of
32 boxes: which of these remain is settled bit by bit in a register, then all that they remove is struck out at once.
So the part that can not be done in parallel is a few instructions per box.

It has run in Triton's interpreter and been compiled for sm_80 and sm_90; `scripts/gpu_check.sh` runs it on a GPU.
"""

from __future__ import annotations

import contextlib

import torch
import triton
import triton.language as tl
from torch import Tensor

from segcli.models.roi_align.geometry import rounded_product

_ROWS = 128  # boxes whose bits a program of the first kernel makes


@triton.jit(do_not_specialize=["K"])
def nms_bits_kernel(  # type: ignore[no-untyped-def]
    p_boxes, p_labels, p_bits, K, limit, LABELS: tl.constexpr, WORDS: tl.constexpr,
    ROWS: tl.constexpr,
):  # fmt: skip
    """Grid (⌈K / ROWS⌉, ⌈K / 32⌉, G). Boxes float32 (G, K, 4), labels int32 (G, K), bits int32 (G, K, WORDS).

    Bit b of word w of row i: box i removes box 32 · w + b, which stands behind it. Words that lie before the row are
    not written.
    """
    i_word, i_group = tl.program_id(1), tl.program_id(2).to(tl.int64)
    if i_word * 32 + 31 < tl.program_id(0) * ROWS:
        return
    i_bit = tl.arange(0, 32)
    i_row, i_col = tl.program_id(0) * ROWS + tl.arange(0, ROWS), i_word * 32 + i_bit
    m_row, m_col = i_row < K, i_col < K
    p_row, p_col = p_boxes + (i_group * K + i_row) * 4, p_boxes + (i_group * K + i_col) * 4
    x1, y1 = tl.load(p_row, m_row, other=0.0), tl.load(p_row + 1, m_row, other=0.0)
    x2, y2 = tl.load(p_row + 2, m_row, other=0.0), tl.load(p_row + 3, m_row, other=0.0)
    u1, v1 = tl.load(p_col, m_col, other=0.0), tl.load(p_col + 1, m_col, other=0.0)
    u2, v2 = tl.load(p_col + 2, m_col, other=0.0), tl.load(p_col + 3, m_col, other=0.0)
    width = tl.minimum(x2[:, None], u2[None, :]) - tl.maximum(x1[:, None], u1[None, :])
    height = tl.minimum(y2[:, None], v2[None, :]) - tl.maximum(y1[:, None], v1[None, :])
    inside = rounded_product(tl.maximum(width, 0.0), tl.maximum(height, 0.0))
    area_row, area_col = rounded_product(x2 - x1, y2 - y1), rounded_product(u2 - u1, v2 - v1)
    # correctly rounded like torchvision's; an overlap of 0 / 0 removes nothing
    overlap = tl.div_rn(inside, (area_row[:, None] + area_col[None, :]) - inside)
    m = (overlap > limit) & (i_col[None, :] > i_row[:, None]) & m_row[:, None] & m_col[None, :]
    if LABELS:
        p_groups = p_labels + i_group * K
        b_row, b_col = (
            tl.load(p_groups + i_row, m_row, other=0),
            tl.load(p_groups + i_col, m_col, other=0),
        )
        m = m & (b_row[:, None] == b_col[None, :])
    b_bits = tl.sum(tl.where(m, 1, 0).to(tl.int32) << i_bit[None, :], axis=1)
    tl.store(p_bits + (i_group * K + i_row) * WORDS + i_word, b_bits, mask=m_row)


@triton.jit(do_not_specialize=["K"])
def nms_walk_kernel(  # type: ignore[no-untyped-def]
    p_bits, p_valid, p_kept, K, WORDS: tl.constexpr
):
    """Grid (G,). Bits as above, valid and kept uint8 (G, K)."""
    i_group = tl.program_id(0).to(tl.int64)
    i_bit, i_word = tl.arange(0, 32), tl.arange(0, WORDS)
    p_bits += i_group * K * WORDS
    p_valid += i_group * K
    p_kept += i_group * K
    b_removed = tl.zeros((WORDS,), tl.int32)
    for i_step in range(0, (K + 31) // 32):
        first = i_step * 32
        m_here = first + i_bit < K
        b_valid = tl.load(p_valid + first + i_bit, mask=m_here, other=0).to(tl.int32)
        alive = tl.sum((b_valid << i_bit), axis=0)
        alive = alive & ~tl.sum(tl.where(i_word == i_step, b_removed, 0), axis=0)
        for r in tl.static_range(32):  # loads do not wait for each other, only the last line does
            own = tl.load(p_bits + (first + r) * WORDS + i_step, mask=first + r < K, other=0)
            alive = alive & ~(own & -((alive >> r) & 1))
        for r in tl.static_range(32):
            m = (i_word > i_step) & (i_word * 32 < K) & (((alive >> r) & 1) == 1)
            b_removed |= tl.load(p_bits + (first + r) * WORDS + i_word, mask=m, other=0)
        tl.store(p_kept + first + i_bit, ((alive >> i_bit) & 1).to(tl.uint8), mask=m_here)


def suppress(boxes: Tensor, valid: Tensor, limit: float, labels: Tensor | None) -> Tensor:
    """Launch the kernels; see `segcli.models.inference.nms.suppress`.

    Args:
        boxes: float32 (G, K, 4), K at least 1.
        valid: bool (G, K).
        limit: a float32 number; larger overlaps are removed.
        labels: int (G, K), or None.

    Returns:
        bool (G, K).
    """
    G, K = valid.shape
    words = triton.next_power_of_2(triton.cdiv(K, 32))
    boxes, valid = boxes.float().contiguous(), valid.contiguous()
    named = boxes if labels is None else labels.to(torch.int32).contiguous()
    bits = torch.empty((G, K, words), dtype=torch.int32, device=boxes.device)
    kept = torch.empty_like(valid)
    with torch.cuda.device(boxes.device) if boxes.is_cuda else contextlib.nullcontext():
        nms_bits_kernel[(triton.cdiv(K, _ROWS), triton.cdiv(K, 32), G)](
            boxes, named, bits, K, limit,
            LABELS=labels is not None, WORDS=words, ROWS=_ROWS, num_warps=4,
        )  # fmt: skip
        nms_walk_kernel[(G,)](
            bits, valid.view(torch.uint8), kept.view(torch.uint8), K, WORDS=words, num_warps=1
        )
    return kept
