"""RoIAlign as it is defined, one RoI after another. Slow; what every faster backend is tested against.

Coordinates are computed in float32 as torchvision's operator does (torchvision/csrc/ops/cpu/roi_align_kernel.cpp),
sums in float64. Differentiable in the features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from segcli.models.roi_align.sampling import Mode


def roi_align_reference(
    features: Tensor,
    rois: Tensor,
    output_size: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
    mode: Mode,
) -> Tensor:
    """See `segcli.models.roi_align.roi_align`; rows with picture index −1 give zeros."""
    N, C = features.shape[:2]
    rows = []
    for roi in rois.detach().to(torch.float32):
        if not 0 <= float(roi[0]) < N:  # NaN too
            rows.append(features.new_zeros((C, *output_size)))
            continue
        ys = _samples(roi[2], roi[4], output_size[0], spatial_scale, sampling_ratio, aligned)
        xs = _samples(roi[1], roi[3], output_size[1], spatial_scale, sampling_ratio, aligned)
        rows.append(_pool(features[int(roi[0])].double(), ys, xs, mode).to(features.dtype))
    return torch.stack(rows) if rows else features.new_zeros((0, C, *output_size))


def _samples(
    start: Tensor, end: Tensor, bins: int, scale: float, sampling_ratio: int, aligned: bool
) -> Tensor:
    """Sample coordinates along one axis, float32 (bins, samples per bin), in cells of the feature map."""
    shift = 0.5 if aligned else 0.0
    first = start * scale - shift
    length = end * scale - shift - first
    if not aligned:
        length = length.clamp(min=1.0)
    step = length / bins
    count = sampling_ratio if sampling_ratio > 0 else _adaptive_count(step)
    inside = torch.arange(count, dtype=torch.float32, device=start.device) + 0.5
    bin_start = torch.arange(bins, dtype=torch.float32, device=start.device) * step
    return first + bin_start[:, None] + inside[None, :] * step / max(count, 1)


def _adaptive_count(step: Tensor) -> int:
    """One sample per cell that a bin covers; none for a degenerate box."""
    return max(int(torch.ceil(step)), 0) if bool(torch.isfinite(step)) else 0


def _pool(plane: Tensor, ys: Tensor, xs: Tensor, mode: Mode) -> Tensor:
    """Average or maximum over the samples of each bin; float64 (C, h, w)."""
    (h, gy), (w, gx) = ys.shape, xs.shape
    if gy * gx == 0:
        return plane.new_zeros((plane.shape[0], h, w))
    values = _bilinear(plane, ys.reshape(-1), xs.reshape(-1))  # (C, h·gy, w·gx)
    values = values.reshape(-1, h, gy, w, gx).permute(0, 1, 3, 2, 4).flatten(3)
    return values.mean(-1) if mode == "avg" else values.amax(-1)


def _bilinear(plane: Tensor, ys: Tensor, xs: Tensor) -> Tensor:
    """Values at every (y, x) of the grid, float64 (C, len(ys), len(xs)); 0 more than a cell outside the map."""
    y_low, y_high, ly, y_valid = _taps(ys, plane.shape[1])
    x_low, x_high, lx, x_valid = _taps(xs, plane.shape[2])
    top = plane[:, y_low][:, :, x_low] * (1 - lx) + plane[:, y_low][:, :, x_high] * lx
    bottom = plane[:, y_high][:, :, x_low] * (1 - lx) + plane[:, y_high][:, :, x_high] * lx
    values = top * (1 - ly[:, None]) + bottom * ly[:, None]
    valid = y_valid[:, None] & x_valid[None, :]
    return torch.where(valid, values, values.new_zeros(()))


def _taps(at: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Lower and upper neighbour (int64), weight of the upper one (float64), and whether the sample counts."""
    valid = (at >= -1.0) & (at <= size)  # False for NaN
    at = torch.where(valid, at, at.new_zeros(())).clamp(min=0.0)
    low = at.to(torch.int64).clamp(max=size - 1)
    at = torch.where(low >= size - 1, low.to(at.dtype), at)
    high = (low + 1).clamp(max=size - 1)
    return low, high, (at - low).double(), valid
