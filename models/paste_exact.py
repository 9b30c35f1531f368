"""Columns of pasted masks as the defining operators compute them, in bands; for what `paste` cannot tell otherwise.

`pixel_centres` is `grid_sample`, which treats every pixel alike, so a band of columns has the bits of the whole.
`truncated_box` is `interpolate`, whose output begins at the box's corner: it is done along x for all columns and then
along y for those wanted, which rounds as both at once do, because the axis that keeps its size is multiplied by 1.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from segcli.models.conventions import Postprocess
from segcli.models.paste_boxes import Axis

_BAND = 2**15 - 1  # pixels that are made at a time; see `paste`
# ATen computes small outputs by another kernel, which rounds otherwise (height + width ≤ 128 in torch 2.14). Boxes of
# fewer pixels than this are resized whole; larger ones never by an output that is smaller than this.
_WHOLE = 2**14


def exact_edges(
    masks: Tensor,
    x: Axis,
    y: Axis,
    size: tuple[int, int],
    conventions: Postprocess,
    columns: Tensor,
) -> Tensor:
    """Where the values change in some columns.

    Args:
        masks: float32 (N, M, M).
        x: of the boxes, see `place`.
        y: likewise.
        size: (H, W) of the picture.
        conventions: which paste rule, and whether 0.5 counts.
        columns: int64 (2, C), object and column of the picture, sorted.

    Returns:
        int64 (E,), sorted: object · (H · W + 1) + place, column by column.
    """
    sampled = _truncated if conventions.mask_paste == "truncated_box" else _centred
    keys = [columns.new_zeros(0)]
    for n in dict.fromkeys(columns[0].tolist()):
        wanted = columns[1, columns[0] == n]
        for band, values in sampled(masks[n], _of(x, n), _of(y, n), wanted):
            inside = values >= 0.5 if conventions.mask_inclusive else values > 0.5
            edges = F.pad(inside, (1, 1)).diff(dim=1).nonzero()
            place = band[edges[:, 0]] * size[0] + edges[:, 1] + y.start[n]
            keys.append(place + n * (size[0] * size[1] + 1))
    return torch.cat(keys)


def _of(axis: Axis, n: int) -> Axis:
    """The axis of one object."""
    return Axis(*(field[n] for field in vars(axis).values()))


def _centred(mask: Tensor, x: Axis, y: Axis, columns: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Some columns, and their values, float32 (columns, rows of the crop)."""
    rows = torch.arange(int(y.start), int(y.end), dtype=torch.float32)
    ys = (rows + 0.5 - y.origin) / y.length * 2 - 1
    xs = (columns.to(torch.float32) + 0.5 - x.origin) / x.length * 2 - 1
    step = max(_BAND // max(len(ys), 1), 1)
    for first in range(0, len(columns), step):
        band = xs[first : first + step]
        shape = (len(band), len(ys))
        grid = torch.stack((band[:, None].expand(shape), ys[None, :].expand(shape)), dim=2)
        values = F.grid_sample(mask[None, None], grid[None], align_corners=False)
        yield columns[first : first + step], values[0, 0]


def _truncated(mask: Tensor, x: Axis, y: Axis, columns: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Some columns, and their values, float32 (columns, rows of the crop)."""
    padded = F.pad(mask, (1, 1, 1, 1))
    width, height = int(x.length), int(y.length)
    wanted = columns - x.origin
    rows = slice(int(y.start - y.origin), int(y.end - y.origin))
    # the product of NaN and 0 is NaN, so that a broken mask must not be done an axis at a time
    if height * width < _WHOLE or not bool(mask.isfinite().all()):
        yield columns, _resized(padded, height, width)[rows, wanted].T
        return
    across = _along_x(padded, width, wanted)
    step = max(_BAND // height, 1)
    for first in range(0, len(columns), step):
        band = _padded(across[:, first : first + step].T, height).T
        values = _resized(band, height, band.shape[1])[rows, : min(step, len(columns) - first)]
        yield columns[first : first + step], values.T


def _along_x(padded: Tensor, width: int, wanted: Tensor) -> Tensor:
    """All rows of cells, resized to `width` pixels, of which the wanted ones are kept."""
    kept, step = [], max(_BAND // width, 1)
    for first in range(0, len(padded), step):
        band = _padded(padded[first : first + step], width)
        resized = _resized(band, len(band), width)
        kept.append(resized[: min(step, len(padded) - first), wanted])
    return torch.cat(kept)


def _padded(lines: Tensor, length: int) -> Tensor:
    """Lines (L, R), and zeros so that the lines of `length` pixels they become are no small output."""
    return F.pad(lines, (0, 0, 0, max(_WHOLE // length + 1 - len(lines), 0)))


def _resized(values: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(values[None, None], (height, width), mode="bilinear", align_corners=False)[
        0, 0
    ]
