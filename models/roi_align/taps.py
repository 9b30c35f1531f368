"""Which cells of the feature maps each bin of each RoI reads, and with what weight: for the CPU's gather.

The average over a bin's samples is separable: a weighted sum over a few rows of cells times one over a few columns.
Samples that share cells are merged, so that a bin of the usual two samples per axis reads 2 to 4 cells per axis where
the definition reads 4, and an adaptive one reads each cell under it once. Coordinates are float32 and round as in
`reference.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from segcli.models.roi_align.levels import box_areas, levels_by_area
from segcli.models.roi_align.sampling import Sampling

_MOST_CELLS = 1 << 16
"""Of the bins of one place in all RoIs of a group: bounds memory where adaptive bins read much of a map."""


@dataclass(frozen=True)
class Taps:
    """Cells and weights of some RoIs that lie on one level.

    Attributes:
        rois: int64 (n,), which rows of the RoIs these are.
        level: index of the pyramid level.
        cells: (n · h · w, K), cells of the level counted through all pictures, row by row; int32 where that suffices.
        weights: float32 (n · h · w, K); 0 for a cell that is not read.
    """

    rois: Tensor
    level: int
    cells: Tensor
    weights: Tensor


@dataclass(frozen=True)
class _Axis:
    """One axis of some RoIs: cells (n, bins, K), weights float32 (n, bins, K), and how many cells each uses (n,)."""

    cells: Tensor
    weights: Tensor
    needed: Tensor

    def split(self, h: int, w: int) -> tuple[_Axis, _Axis]:
        """The rows' half, of `h` bins, and the columns', of `w`."""
        n = len(self.needed) // 2
        ys = _Axis(self.cells[:n, :h], self.weights[:n, :h], self.needed[:n])
        return ys, _Axis(self.cells[n:, :w], self.weights[n:, :w], self.needed[n:])


def taps_of(
    shapes: list[tuple[int, int, int, int]],
    rois: Tensor,
    output_size: tuple[int, int],
    sampling: Sampling,
    limit: int,
) -> Iterator[Taps]:
    """Every RoI that reads at least one cell, in groups of the same level that need about as many cells.

    Args:
        shapes: (N, H, W, C) per level.
        rois: float32 (R, 5), on the CPU.
        output_size: (h, w) bins.
        sampling: how a RoI becomes samples; mode `avg`.
        limit: most RoIs in a group.
    """
    rois, R = rois.detach(), len(rois)
    level = levels_by_area(box_areas(rois[:, 1:]), sampling.thresholds)
    heights, widths = (torch.tensor([shape[axis] for shape in shapes])[level] for axis in (1, 2))
    scale = torch.tensor(sampling.scales, dtype=torch.float32)[level]
    # both axes at once, rows first: half as many calls of torch, whose cost is what counts with so few numbers
    size = torch.cat((heights, widths))
    bins = torch.tensor(output_size, dtype=torch.float32).repeat_interleave(R)
    low, high = rois[:, [2, 1]].T.reshape(-1), rois[:, [4, 3]].T.reshape(-1)
    first, step, count = _bin_axis(low, high, scale.repeat(2), bins, sampling)
    visits = _visits(step, count, size, sampling.ratio)
    most = visits.view(2, R).amax(0)
    there = (rois[:, 0] >= 0) & (rois[:, 0] < shapes[0][0]) & (heights * widths > 0)
    there &= visits.view(2, R).amin(0) > 0
    counts = torch.int32 if max(n * h * w for n, h, w, _ in shapes) < 2**31 else torch.int64
    # boxes with few samples are not padded to the one with the most
    tier = torch.ceil(torch.log2(most.clamp(min=1).float()))
    for power in torch.unique(tier[there]).tolist():
        rows = torch.where(there & (tier == power))[0]
        both = torch.cat((rows, rows + R))
        axes = _axis_taps(
            first[both], step[both], count[both], max(output_size), size[both], visits[both]
        )
        base = rois[rows, 0].to(torch.int64) * heights[rows] * widths[rows]
        ys, xs = axes.split(*output_size)
        yield from _groups(rows, level[rows], base, widths[rows], ys, xs, limit, counts)


def _bin_axis(
    low: Tensor, high: Tensor, scale: Tensor, bins: Tensor, sampling: Sampling
) -> tuple[Tensor, Tensor, Tensor]:
    """First edge, length of a bin (cells) and samples per bin of each RoI; float32 (R,)."""
    shift = 0.5 if sampling.aligned else 0.0
    first = low * scale - shift
    length = high * scale - shift - first
    if not sampling.aligned:
        length = length.clamp(min=1.0)
    step = length / bins
    if sampling.ratio > 0:
        return first, step, torch.full_like(step, float(sampling.ratio))
    inside = (step > 0) & torch.isfinite(step)
    return first, step, torch.where(inside, torch.ceil(step), 0.0)


def _visits(step: Tensor, count: Tensor, size: Tensor, ratio: int) -> Tensor:
    """Samples per bin that have to be looked at: all, or as many as can lie on the map; int64 (R,)."""
    if ratio > 0:
        return count.to(torch.int64)
    spacing = step / count.clamp(min=1.0)
    across = torch.ceil((size + 1) / spacing) + 5
    return torch.nan_to_num(torch.minimum(count, across)).to(torch.int64)


def _axis_taps(
    first: Tensor, step: Tensor, count: Tensor, bins: int, size: Tensor, visits: Tensor
) -> _Axis:
    """Merge the samples of each bin along one axis."""
    at, counted = _sample_coordinates(first, step, count, bins, int(visits.max()))
    top = size[:, None, None]
    inside = counted & (at >= -1.0) & (at <= top)
    at = torch.nan_to_num(at).clamp(min=0.0)
    low = torch.minimum(at, top - 1.0).to(torch.int64)
    upper = torch.where(low >= top - 1, 0.0, at - low)
    share = inside / count[:, None, None]
    # the cells of consecutive samples: the same, one further (they share one), or apart (they share none)
    slot = torch.zeros_like(low)
    slot[..., 1:] = torch.cumsum(low.diff(dim=-1).clamp(max=2), dim=-1)
    needed = slot[..., -1].amax(1) + 2
    K = int(needed.max())
    cells = low[..., :1].expand(*low.shape[:2], K).clone()
    cells.scatter_(2, slot, low)
    cells.scatter_(2, slot + 1, torch.minimum(low + 1, top - 1))
    weights = torch.zeros(cells.shape, dtype=torch.float32)
    weights.scatter_add_(2, slot, (1.0 - upper) * share)
    weights.scatter_add_(2, slot + 1, upper * share)
    return _Axis(cells, weights, needed)


def _sample_coordinates(
    first: Tensor, step: Tensor, count: Tensor, bins: int, visits: int
) -> tuple[Tensor, Tensor]:
    """Samples (R, bins, visits) in rising order, float32 cells, and whether each is one of the bin's own."""
    i_bin = torch.arange(bins, dtype=torch.float32)
    bin_start = first[:, None] + i_bin * step[:, None]
    spacing = (step / count)[:, None]
    # samples before the map are skipped; a box that no one clipped may have a billion of them
    skip = torch.nan_to_num(torch.floor((-1.0 - bin_start) / spacing) - 2.0, nan=0.0)
    last = torch.minimum(count, count.new_tensor(float(visits)))[:, None]
    skip = torch.minimum(skip.clamp(min=0.0), (count[:, None] - last).clamp(min=0.0))
    index = skip[..., None] + torch.arange(visits, dtype=torch.float32)
    counted = index < count[:, None, None]
    index = torch.minimum(index, count[:, None, None] - 1.0)
    at = bin_start[..., None] + (index + 0.5) * step[:, None, None] / count[:, None, None]
    turned = (step < 0)[
        :, None, None
    ]  # a box inside out, possible with a fixed number of samples only
    return torch.where(turned, at.flip(-1), at), counted


def _groups(
    rows: Tensor,
    level: Tensor,
    base: Tensor,
    width: Tensor,
    ys: _Axis,
    xs: _Axis,
    limit: int,
    counts: torch.dtype,
) -> Iterator[Taps]:
    """Cut into groups of one level, sorted by the cells they need, and multiply the two axes."""
    key = (level * (int(ys.needed.max()) + 1) + ys.needed) * (int(xs.needed.max()) + 1) + xs.needed
    order = torch.argsort(key, stable=True)
    rows, level = rows[order], level[order]
    y_needed, x_needed = ys.needed[order].tolist(), xs.needed[order].tolist()
    y_cells = (ys.cells[order] * width[order, None, None] + base[order, None, None]).to(counts)
    x_cells = xs.cells[order].to(counts)
    y_weights, x_weights = ys.weights[order], xs.weights[order]
    start = 0
    for end in _cuts(level, y_needed, x_needed, limit):
        part, y, x = slice(start, end), max(y_needed[start:end]), max(x_needed[start:end])
        cells = _by_row(y_cells[part, :, :y], x) + _by_column(x_cells[part, :, :x], y)
        weights = _by_row(y_weights[part, :, :y], x) * _by_column(x_weights[part, :, :x], y)
        yield Taps(rows[part], int(level[start]), cells.view(-1, y * x), weights.view(-1, y * x))
        start = end


def _by_row(values: Tensor, columns: int) -> Tensor:
    """(n, h, y) as (n, h, 1, y · x), each value for all columns.

    Written out, since torch adds long runs of numbers several times as fast as it broadcasts short ones.
    """
    return values.repeat_interleave(columns, 2)[:, :, None]


def _by_column(values: Tensor, rows: int) -> Tensor:
    """(n, w, x) as (n, 1, w, y · x), all values for each row."""
    return values.repeat(1, 1, rows)[:, None]


def _cuts(level: Tensor, y_needed: list[int], x_needed: list[int], limit: int) -> list[int]:
    """Ends of runs of one level, none longer than `limit` or with more than `_MOST_CELLS` cells per bin in sum."""
    ends, start = [], 0
    for length in torch.unique_consecutive(level, return_counts=True)[1].tolist():
        stop = start + length
        while start < stop:
            end = min(start + limit, stop)
            worst = max(y_needed[start:end]) * max(x_needed[start:end])
            start = min(end, start + max(1, _MOST_CELLS // worst))
            ends.append(start)
    return ends
