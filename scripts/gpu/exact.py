"""RoIAlign over a pyramid with sums in float64, all RoIs at once: what the kernels are compared with at full size.

`segcli.models.roi_align.reference` is the definition and takes one RoI at a time. This one makes the same samples;
a rehearsal compares the two. Coordinates are made on the CPU: torch's CUDA division by a number multiplies by its
reciprocal, which rounds otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from segcli.models.roi_align.levels import box_areas, levels_by_area
from segcli.models.roi_align.sampling import Sampling

_CHUNK = 64  # RoIs; 14 × 14 bins of 256 channels take 1.6 GB of taps then


@dataclass(frozen=True)
class _Axis:
    """Taps of one axis, (R, bins · samples): cells, the upper one's weight in float64, and which samples count."""

    low: Tensor
    high: Tensor
    upper: Tensor
    valid: Tensor


def pooled(maps: list[Tensor], rois: Tensor, size: tuple[int, int], how: Sampling) -> Tensor:
    """Average pooling at a fixed sampling ratio.

    Args:
        maps: per level (N, H, W, C), any float type.
        rois: float32 (R, 5), all of pictures that are there.
        size: (h, w) bins.
        how: levels, ratio and alignment.

    Returns:
        Float64 (R, h, w, C).
    """
    out = torch.empty(
        (len(rois), *size, maps[0].shape[3]), dtype=torch.float64, device=maps[0].device
    )
    for level, rows, taps in _taps(maps, rois, size, how):
        flat = maps[level].flatten(0, 2)
        total = sum(flat[index].double() * weight[..., None] for index, weight in taps)
        assert isinstance(total, Tensor)
        out[rows] = _bins(total, size, how.ratio).mean((2, 4))
    return out


def gradients(
    grads: list[Tensor], rois: list[Tensor], shapes: list[tuple[int, int, int, int]], how: Sampling
) -> list[Tensor]:
    """Gradients of `pooled` in its maps; float64 per level (N, H, W, C).

    Args:
        grads: per pooling (R, h, w, C).
        rois: per pooling float32 (R, 5).
        shapes: per level (N, H, W, C).
        how: as in `pooled`.
    """
    device = grads[0].device
    out = [torch.zeros(shape, dtype=torch.float64, device=device) for shape in shapes]
    for grad, boxes in zip(grads, rois, strict=True):
        size = (grad.shape[1], grad.shape[2])
        for level, rows, taps in _taps(out, boxes, size, how):
            spread = grad[rows].double() / how.ratio**2
            spread = spread.repeat_interleave(how.ratio, 1).repeat_interleave(how.ratio, 2)
            flat = out[level].flatten(0, 2)
            for index, weight in taps:
                values = spread * weight[..., None]
                flat.index_add_(0, index.flatten(), values.flatten(0, 2))
    return out


def _taps(
    maps: list[Tensor], rois: Tensor, size: tuple[int, int], how: Sampling
) -> Iterator[tuple[int, Tensor, list[tuple[Tensor, Tensor]]]]:
    """Chunks of RoIs of one level: level, their rows, and four times (row of the map, weight), each (R, y, x)."""
    device, rois = maps[0].device, rois.cpu()
    levels = levels_by_area(box_areas(rois[:, 1:]), how.thresholds)
    for level, scale in enumerate(how.scales):
        _, H, W, _ = maps[level].shape
        for rows in torch.where(levels == level)[0].split(_CHUNK):
            roi = rois[rows]
            y = _axis(roi[:, 2], roi[:, 4], size[0], H, scale, how)
            x = _axis(roi[:, 1], roi[:, 3], size[1], W, scale, how)
            base = roi[:, 0].long()[:, None, None] * H
            counts = (y.valid[:, :, None] & x.valid[:, None, :]).double()
            taps = []
            for cell_y, weight_y in ((y.low, 1 - y.upper), (y.high, y.upper)):
                for cell_x, weight_x in ((x.low, 1 - x.upper), (x.high, x.upper)):
                    index = (base + cell_y[:, :, None]) * W + cell_x[:, None, :]
                    weight = weight_y[:, :, None] * weight_x[:, None, :] * counts
                    taps.append((index.to(device), weight.to(device)))
            yield level, rows.to(device), taps


def _axis(start: Tensor, end: Tensor, bins: int, cells: int, scale: float, how: Sampling) -> _Axis:
    shift = 0.5 if how.aligned else 0.0
    first = start * scale - shift
    length = end * scale - shift - first
    if not how.aligned:
        length = length.clamp(min=1.0)
    step = (length / bins)[:, None, None]
    inside = (torch.arange(how.ratio, dtype=torch.float32) + 0.5)[None, None, :]
    i_bin = torch.arange(bins, dtype=torch.float32)[None, :, None]
    at = (first[:, None, None] + i_bin * step + inside * step / how.ratio).flatten(1)
    valid = (at >= -1.0) & (at <= cells)
    at = torch.where(valid, at, at.new_zeros(())).clamp(min=0.0)
    low = at.long().clamp(max=cells - 1)
    upper = torch.where(low >= cells - 1, 0.0, (at - low).double())
    return _Axis(low, (low + 1).clamp(max=cells - 1), upper, valid)


def _bins(samples: Tensor, size: tuple[int, int], ratio: int) -> Tensor:
    """(R, h · n, w · n, C) as (R, h, n, w, n, C)."""
    return samples.unflatten(2, (size[1], ratio)).unflatten(1, (size[0], ratio))
