"""Many masks as sets of pixels: moved, united and compared exactly, all at once, and never as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segcli.masks import Masks
from segcli.rle import runs_of_edges

AT_ONCE = 1 << 20  # spans compared or united in one go: some 50 MB of working memory

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Spans:
    """N sets of pixels of one picture. A span is a stretch of pixels in one column.

    Attributes:
        starts: int64 (R,), the first pixel of each span, numbered column by column (x · H + y). The spans of one set
            follow one another, sorted; they do not overlap, but may touch.
        ends: int64 (R,), the pixel after the last one, in the same numbering; never beyond the span's column.
        offsets: int64 (N + 1,); the spans of set i are `offsets[i]:offsets[i + 1]`.
        size: (H, W) of the picture in pixels.
    """

    starts: Ints
    ends: Ints
    offsets: Ints
    size: tuple[int, int]

    @classmethod
    def from_masks(cls, masks: Masks, origin: tuple[int, int], size: tuple[int, int]) -> Spans:
        """Masks of a part of a picture, moved to where the part lies.

        Args:
            masks: of the part.
            origin: (x, y) of the part's top-left pixel in the picture.
            size: (H, W) of the picture; the part must lie within it.

        Raises:
            ValueError: it does not.
        """
        (h, w), (x, y), (H, W) = masks.size, origin, size
        if not (0 <= x <= W - w and 0 <= y <= H - h):
            raise ValueError(f"a part of {w} × {h} pixels at {origin} is not within {W} × {H}")
        # the runs of a mask cover its h · w pixels, so the running sum numbers the columns of all masks in one row
        edges = np.cumsum(masks.counts, dtype=np.int64)
        _, place = _ranges(np.zeros(len(masks), np.int64), np.diff(masks.offsets))
        of_one = np.flatnonzero(place % 2 == 1)
        starts, ends = edges[of_one - 1], edges[of_one]
        solid = ends > starts
        starts, ends = _split_at_columns(starts[solid], ends[solid], h)
        column, top = np.divmod(starts, h)
        owner, column = np.divmod(column, w)
        moved = (column + x) * H + top + y
        return cls(moved, moved + ends - starts, _offsets(owner, len(masks)), size)

    @classmethod
    def concatenate(cls, parts: Sequence[Spans], size: tuple[int, int]) -> Spans:
        """The sets of all parts behind one another; all of one picture of (H, W) pixels."""
        counts = [np.zeros(1, np.int64), *(np.diff(part.offsets) for part in parts)]
        none = np.zeros(0, np.int64)
        return cls(
            np.concatenate([none, *(part.starts for part in parts)]),
            np.concatenate([none, *(part.ends for part in parts)]),
            np.cumsum(np.concatenate(counts)),
            size,
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, sets: NDArray[np.integer[Any]]) -> Spans:
        """Some of the sets, by number, int (M,)."""
        row, span = self._spans_of(sets)
        return Spans(self.starts[span], self.ends[span], _offsets(row, len(sets)), self.size)

    def area(self) -> Ints:
        """int64 (N,): pixels in each set."""
        return np.diff(self._before[self.offsets])

    def boxes(self) -> Ints:
        """int64 (N, 4): tight xyxy boxes in pixels, the far edges exclusive; zeros for an empty set."""
        boxes = np.zeros((len(self), 4), np.int64)
        filled = np.flatnonzero(np.diff(self.offsets))
        if len(filled) == 0:
            return boxes
        H = self.size[0]
        column, top = np.divmod(self.starts, H)
        first, last = self.offsets[filled], self.offsets[filled + 1] - 1
        boxes[filled, 0] = column[first]
        boxes[filled, 2] = column[last] + 1
        boxes[filled, 1] = np.minimum.reduceat(top, first)
        boxes[filled, 3] = np.maximum.reduceat(top + self.ends - self.starts, first)
        return boxes

    def areas_within(self, sets: NDArray[np.integer[Any]], rectangles: Ints) -> Ints:
        """Pixels of sets inside rectangles.

        Args:
            sets: int (M,), which sets.
            rectangles: int64 (M, 4), one for each, or (4,) for all: xyxy in pixels, the far edges exclusive.

        Returns:
            int64 (M,).
        """
        row, span = self._spans_of(sets)
        x0, y0, x1, y1 = np.broadcast_to(rectangles, (len(sets), 4))[row].T
        column, top = np.divmod(self.starts[span], self.size[0])
        bottom = top + self.ends[span] - self.starts[span]
        inside = np.minimum(bottom, y1) - np.maximum(top, y0)
        inside = np.where((column >= x0) & (column < x1), np.maximum(inside, 0), 0)
        return _sums(inside, _offsets(row, len(sets)))

    def intersection_areas(
        self, left: NDArray[np.integer[Any]], right: NDArray[np.integer[Any]]
    ) -> Ints:
        """Pixels that two sets share, for M pairs.

        Args:
            left: int (M,), one set of each pair.
            right: int (M,), the other.

        Returns:
            int64 (M,).
        """
        spans = np.diff(self.offsets)
        fewer, other = np.where(spans[left] <= spans[right], (left, right), (right, left))
        batch = np.cumsum(spans[fewer]) // AT_ONCE
        cuts = np.flatnonzero(np.diff(batch)) + 1
        parts = zip(np.split(fewer, cuts), np.split(other, cuts), strict=True)
        return np.concatenate([self._shared(a, b) for a, b in parts])

    def union(self, group: NDArray[np.integer[Any]], groups: int) -> Spans:
        """One set for each group of sets: the pixels that are in any of them.

        Args:
            group: int (N,), the group of each set, 0 … groups − 1.
            groups: how many there are; one without sets is empty.
        """
        pixels = self.size[0] * self.size[1]
        start = self.starts + np.asarray(group, np.int64)[self._owner] * pixels
        order = np.argsort(start, kind="stable")
        start = start[order]
        # the furthest end so far; those of another group are all smaller than any start of this one
        reach = np.maximum.accumulate(start + (self.ends - self.starts)[order])
        new = np.ones(len(start), bool)
        # spans that only touch become one, but not across two columns
        at_top = start[1:] % self.size[0] == 0
        new[1:] = np.where(at_top, start[1:] >= reach[:-1], start[1:] > reach[:-1])
        first = np.flatnonzero(new)
        last = np.append(first[1:], len(start))[: len(first)] - 1
        owner, starts = np.divmod(start[first], pixels)
        return Spans(
            starts, starts + reach[last] - start[first], _offsets(owner, groups), self.size
        )

    def to_masks(self) -> Masks:
        """The sets as run lengths."""
        edges = np.stack((self.starts, self.ends), axis=1).reshape(-1)
        total = self.size[0] * self.size[1]
        cuts = (2 * self.offsets).tolist()
        runs = (runs_of_edges(edges[a:b], total) for a, b in pairwise(cuts))
        return Masks.from_runs(runs, self.size)

    @cached_property
    def _owner(self) -> Ints:
        """int64 (R,): the set of each span."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    @cached_property
    def _before(self) -> Ints:
        """int64 (R + 1,): pixels in all spans before each."""
        return np.concatenate(([0], np.cumsum(self.ends - self.starts)))

    @cached_property
    def _keys(self) -> tuple[Ints, Ints]:
        """Starts, int64 (R,), and ends, int64 (R + 1,) after a leading 0, with all sets in one row of pixels."""
        base = self._owner * (self.size[0] * self.size[1])
        return self.starts + base, np.concatenate(([0], self.ends + base))

    def _spans_of(self, sets: NDArray[np.integer[Any]]) -> tuple[Ints, Ints]:
        """For all spans of the sets: which of `sets`, and which span."""
        return _ranges(self.offsets[sets], np.diff(self.offsets)[sets])

    def _shared(self, left: Ints, right: Ints) -> Ints:
        """Per pair, sum over the left set's spans the pixels of the right set that lie in them."""
        row, span = self._spans_of(left)
        base = right[row] * (self.size[0] * self.size[1])
        shared = self._below(base + self.ends[span]) - self._below(base + self.starts[span])
        return _sums(shared, _offsets(row, len(left)))

    def _below(self, pixel: Ints) -> Ints:
        """How many pixels of all sets, in one row, lie before each of these."""
        starts, ends = self._keys
        begun = np.searchsorted(starts, pixel)
        too_many: Ints = np.maximum(ends[begun] - pixel, 0)
        return self._before[begun] - too_many


def _ranges(first: Ints, count: Ints) -> tuple[Ints, Ints]:
    """`first[i], first[i] + 1, …`, `count[i]` of them for each i, behind one another; i beside each, then the value."""
    row = np.repeat(np.arange(len(first)), count)
    value = np.arange(len(row)) + np.repeat(first - np.cumsum(count) + count, count)
    return row, value


def _offsets(owner: Ints, sets: int) -> Ints:
    """int64 (sets + 1,): where each set's spans begin, from the sorted owner of each span."""
    return np.searchsorted(owner, np.arange(sets + 1)).astype(np.int64)


def _sums(values: Ints, offsets: Ints) -> Ints:
    """Sums of `values[offsets[i]:offsets[i + 1]]`."""
    return np.diff(np.concatenate(([0], np.cumsum(values)))[offsets])


def _split_at_columns(starts: Ints, ends: Ints, height: int) -> tuple[Ints, Ints]:
    """Spans that go on in the next column, cut there."""
    first = starts // height
    row, column = _ranges(first, (ends - 1) // height - first + 1)
    return np.maximum(starts[row], column * height), np.minimum(ends[row], (column + 1) * height)
