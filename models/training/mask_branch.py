"""The mask head in training: only the matched class of each RoI is computed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from segcli.models.training.units import convolve_1x1, run_block

_CHUNK = 64
"""RoIs whose enlarged features are held at once; those of more are computed again in the backward pass."""


def mask_logits(heads: Any, pooled: Tensor, rows: Tensor) -> Tensor:
    """Mask logits of each RoI's own class.

    torchvision computes all classes, (P, 91, 28, 28), and takes one of them, and its gradient is as large.

    Args:
        heads: with `mask_head` and `mask_predictor`.
        pooled: (P, C, 14, 14).
        rows: int64 (P,), row of the class in the mask logits.

    Returns:
        (P, 28, 28).

    Raises:
        TypeError: a predictor other than a 2×2 deconvolution with a 1×1 convolution behind it.
    """
    x = pooled
    for block in heads.mask_head:
        x = run_block(block, x)
    grown, last = heads.mask_predictor.conv5_mask, heads.mask_predictor.mask_fcn_logits
    if grown.kernel_size != (2, 2) or grown.stride != (2, 2) or last.kernel_size != (1, 1):
        raise TypeError(
            "mask predictor: expected a 2×2 deconvolution of stride 2 and a 1×1 convolution"
        )
    if len(x) <= _CHUNK:
        return _own_logits(heads.mask_predictor, x, rows)
    parts = zip(torch.split(x, _CHUNK), torch.split(rows, _CHUNK), strict=True)
    chunks = [
        checkpoint(_own_logits, heads.mask_predictor, *part, use_reentrant=False) for part in parts
    ]
    return torch.cat(chunks)


def _own_logits(predictor: Any, x: Tensor, rows: Tensor) -> Tensor:
    """Features (P, C, h, w) to logits (P, 2h, 2w) of class rows int64 (P,)."""
    grown, last = predictor.conv5_mask, predictor.mask_fcn_logits
    # four positions side by side as channels: a deconvolution whose pixels are put in place at the very end
    weight = grown.weight.permute(2, 3, 1, 0).flatten(0, 2)[:, :, None, None]
    x = convolve_1x1(x, weight, grown.bias.repeat(4), relu=True)  # (P, 4 · C', h, w)
    P, _, h, w = x.shape
    cells = x.permute(0, 2, 3, 1).reshape(P, h * w * 4, grown.out_channels)
    own = last.weight[rows, :, 0, 0][:, :, None].to(cells.dtype)  # (P, C', 1)
    found: Tensor = torch.bmm(cells, own) + last.bias[rows][:, None, None]
    return found.view(P, h, w, 2, 2).permute(0, 1, 3, 2, 4).reshape(P, 2 * h, 2 * w)
