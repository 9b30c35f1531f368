"""RoIAlign on a CPU as a gather of whole rows: `embedding_bag` over channels-last features, forward and backward.

The features of one cell are one row of a table; a bin is a bag of a few rows with weights. torch reads such bags with
vector instructions on all cores, where torchvision's operator is a scalar loop on one (pytorch/vision#6619). The
gradient is the same gather turned round: the taps sorted by cell, each cell a bag of bins. Nothing is scattered, so
the result does not depend on the number of threads.

In bfloat16 and float16 the weights are rounded to that type, since the table's type is the only one the bags take;
sums are float32.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from segcli.models.roi_align.sampling import Sampling
from segcli.models.roi_align.taps import taps_of

_PIECE = 1 << 21
"""Results are made in pieces of about this many values, which the processor's cache holds until they are stored."""


def forward(
    features: list[Tensor], rois: Tensor, output_size: tuple[int, int], sampling: Sampling
) -> Tensor:
    """Pool every RoI.

    Args:
        features: per level (N, H, W, C), contiguous, one floating type.
        rois: float32 (R, 5), see `roi_align`.
        output_size: (h, w) bins.
        sampling: everything else; mode `avg`.

    Returns:
        (R, h, w, C) in the features' type.
    """
    C = features[0].shape[3]
    row = output_size[0] * output_size[1] * C
    out = features[0].new_empty((len(rois), row))
    if out.numel() == 0:
        return out.view(len(rois), *output_size, C)
    untouched = torch.ones(len(rois), dtype=torch.bool)
    shapes = [_shape(level) for level in features]
    for taps in taps_of(shapes, rois, output_size, sampling, max(1, _PIECE // max(row, 1))):
        table = features[taps.level].view(-1, C)
        pooled = F.embedding_bag(
            taps.cells, table, per_sample_weights=taps.weights.to(table.dtype), mode="sum"
        )
        _wide(out).index_copy_(0, taps.rois, _wide(pooled.view(-1, row)))
        untouched[taps.rois] = False
    out.index_fill_(0, torch.where(untouched)[0], 0.0)
    return out.view(len(rois), *output_size, C)


def _wide(rows: Tensor) -> Tensor:
    """The same memory as numbers of eight bytes, which are copied in less time than two or four times as many."""
    return rows.view(torch.float64) if rows.shape[1] * rows.itemsize % 8 == 0 else rows


def backward(
    grads: list[Tensor],
    rois: list[Tensor],
    shapes: list[tuple[int, int, int, int]],
    dtype: torch.dtype,
    sampling: Sampling,
) -> list[Tensor]:
    """Gradient of one or several poolings of the same features.

    Args:
        grads: per pooling (R, h, w, C), contiguous: the gradient of its output.
        rois: per pooling float32 (R, 5).
        shapes: per level (N, H, W, C).
        dtype: of the result.
        sampling: as in the forward pass.

    Returns:
        Per level (N, H, W, C): the sum over all poolings.
    """
    C = shapes[0][3]
    if C == 0:
        return [torch.zeros(shape, dtype=dtype) for shape in shapes]
    table = torch.cat([g.reshape(-1, C) for g in grads]) if len(grads) > 1 else grads[0].view(-1, C)
    cells, bins, weights = _transposed(grads, rois, shapes, sampling)
    out = []
    for level, shape in enumerate(shapes):
        cell, order = torch.sort(cells[level], stable=True)
        counts = torch.bincount(cell, minlength=shape[0] * shape[1] * shape[2])
        starts = torch.cumsum(counts, 0) - counts
        grad = F.embedding_bag(
            bins[level][order], table, starts,
            per_sample_weights=weights[level][order].to(table.dtype), mode="sum",
        )  # fmt: skip
        out.append(grad.to(dtype).view(shape))
    return out


def _transposed(
    grads: list[Tensor],
    rois: list[Tensor],
    shapes: list[tuple[int, int, int, int]],
    sampling: Sampling,
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Per level the taps with a weight: cell, row of the gradients' table, weight."""
    empty = torch.zeros(0, dtype=torch.int64)
    cells, bins = [[empty] for _ in shapes], [[empty] for _ in shapes]
    weights = [[empty.float()] for _ in shapes]
    offset = 0
    for grad, boxes in zip(grads, rois, strict=True):
        h, w = grad.shape[1:3]
        for taps in taps_of(shapes, boxes, (h, w), sampling, 64):
            bag = offset + taps.rois[:, None] * (h * w) + torch.arange(h * w)
            used = taps.weights != 0
            cells[taps.level].append(taps.cells[used])
            weights[taps.level].append(taps.weights[used])
            bins[taps.level].append(bag.view(-1, 1).expand(used.shape)[used])
        offset += len(boxes) * h * w
    return (
        [torch.cat(c) for c in cells],
        [torch.cat(b) for b in bins],
        [torch.cat(w) for w in weights],
    )


def _shape(level: Tensor) -> tuple[int, int, int, int]:
    N, H, W, C = level.shape
    return N, H, W, C
