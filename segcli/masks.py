"""Instance masks as run lengths: small however large the picture is, exact, holes and parts kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segcli.errors import DataError
from segcli.rle import decode_counts, encode_counts, runs_of_crop

Index = int | slice | NDArray[np.bool_] | NDArray[np.integer[Any]] | Sequence[int]


@dataclass(frozen=True, eq=False)
class Masks:
    """N masks of one picture.

    Attributes:
        counts: uint32 (K,); the run lengths of all masks behind one another. Runs go column by column and
            alternate 0 and 1, each mask beginning with 0 (COCO's order).
        offsets: int64 (N + 1,); mask i is `counts[offsets[i]:offsets[i + 1]]`.
        size: (H, W) of the picture in pixels.
    """

    counts: NDArray[np.uint32]
    offsets: NDArray[np.int64]
    size: tuple[int, int]

    @classmethod
    def empty(cls, size: tuple[int, int]) -> Masks:
        """No masks, of a picture of `size` (H, W)."""
        return cls(np.zeros(0, np.uint32), np.zeros(1, np.int64), size)

    @classmethod
    def from_runs(cls, runs: Iterable[NDArray[np.uint32]], size: tuple[int, int]) -> Masks:
        """From one run-length array (uint32) per mask."""
        parts = list(runs)
        if not parts:
            return cls.empty(size)
        offsets = np.concatenate(([0], np.cumsum([len(p) for p in parts]))).astype(np.int64)
        return cls(np.concatenate(parts).astype(np.uint32), offsets, size)

    @classmethod
    def from_dense(cls, dense: NDArray[np.bool_]) -> Masks:
        """From bool (N, H, W)."""
        size = (int(dense.shape[1]), int(dense.shape[2]))
        return cls.from_crops([(d, (0, 0)) for d in dense], size)

    @classmethod
    def from_crops(
        cls, crops: Iterable[tuple[NDArray[np.bool_], tuple[int, int]]], size: tuple[int, int]
    ) -> Masks:
        """From (crop bool (h, w), (x, y) of its top-left pixel) pairs; empty outside the crops."""
        return cls.from_runs((runs_of_crop(c, xy, size) for c, xy in crops), size)

    @classmethod
    def from_coco(cls, entries: Iterable[dict[str, Any]], size: tuple[int, int]) -> Masks:
        """From COCO's RLE dicts, compressed or not.

        Raises:
            DataError: an entry is no RLE, its size is not `size`, or its runs do not cover the picture exactly.
        """
        return cls.from_runs((_runs_of_coco(e, size) for e in entries), size)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: Index) -> Masks:
        rows = np.atleast_1d(np.arange(len(self))[index])
        return Masks.from_runs((self.runs(i) for i in rows), self.size)

    def runs(self, i: int) -> NDArray[np.uint32]:
        """The run lengths of mask `i`."""
        return self.counts[self.offsets[i] : self.offsets[i + 1]]

    def area(self) -> NDArray[np.int64]:
        """int64 (N,): pixels in each mask."""
        return np.array(
            [self.runs(i)[1::2].sum(dtype=np.int64) for i in range(len(self))], np.int64
        )

    def boxes(self) -> NDArray[np.float32]:
        """float32 (N, 4): tight xyxy boxes in pixels, the far edges exclusive; zeros for an empty mask."""
        boxes = [self._bounds(i) for i in range(len(self))]
        return np.array(boxes, np.float32).reshape(-1, 4)

    def crop(self, i: int) -> tuple[NDArray[np.bool_], tuple[int, int]]:
        """Mask `i` cut to its tight box.

        Returns:
            bool (h, w), and (x, y) of its top-left pixel; (0, 0) sized for an empty mask.
        """
        x0, y0, x1, y1 = self._bounds(i)
        columns = np.zeros((x1 - x0, y1 - y0), bool)
        H = self.size[0]
        for start, end in self._spans(i):
            first, last = start // H, (end - 1) // H
            if first == last:
                columns[first - x0, start % H - y0 : (end - 1) % H + 1 - y0] = True
            else:  # a run over several columns: the tight box then spans the full height
                columns.reshape(-1)[start - x0 * H : end - x0 * H] = True
        return columns.T, (x0, y0)

    def full(self, i: int) -> NDArray[np.bool_]:
        """Mask `i` as bool (H, W)."""
        H, W = self.size
        runs = self.runs(i)
        values = np.arange(len(runs)) % 2 == 1
        return np.repeat(values, runs).reshape(W, H).T

    def coco(self, i: int) -> dict[str, Any]:
        """Mask `i` as COCO's compressed RLE: `{"size": [H, W], "counts": text}`."""
        return {"size": list(self.size), "counts": encode_counts(self.runs(i))}

    def _spans(self, i: int) -> NDArray[np.int64]:
        """int64 (R, 2): start and end (exclusive) of each run of 1, as column-major pixel numbers."""
        edges = np.cumsum(self.runs(i), dtype=np.int64)
        if len(edges) % 2:
            edges = edges[:-1]
        spans = edges.reshape(-1, 2)
        return spans[spans[:, 1] > spans[:, 0]]

    def _bounds(self, i: int) -> tuple[int, int, int, int]:
        spans = self._spans(i)
        if len(spans) == 0:
            return 0, 0, 0, 0
        H = self.size[0]
        first, last = spans[:, 0], spans[:, 1] - 1
        x0, x1 = int(first[0] // H), int(last[-1] // H) + 1
        if np.any(first // H != last // H):
            return x0, 0, x1, H
        return x0, int((first % H).min()), x1, int((last % H).max()) + 1


def _runs_of_coco(entry: dict[str, Any], size: tuple[int, int]) -> NDArray[np.uint32]:
    """Check and unpack one RLE dict."""
    try:
        found, counts = tuple(int(v) for v in entry["size"]), entry["counts"]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"not an RLE: expected size and counts, found {str(entry)[:60]}") from error
    if found != tuple(size):
        raise DataError(
            f"RLE of size {list(found)} in a picture of size {list(size)} (height, width)"
        )
    text = isinstance(counts, str | bytes)
    runs = decode_counts(counts) if text else _runs_of_list(counts, size[0] * size[1])
    total = int(runs.sum(dtype=np.int64))
    if total != size[0] * size[1]:
        raise DataError(f"RLE covers {total} pixels, the picture has {size[0] * size[1]}")
    return runs


def _runs_of_list(counts: Any, pixels: int) -> NDArray[np.uint32]:
    """Uncompressed counts, checked before the cast: 2³² + 5 would become 5, and 1.5 would become 1."""
    try:
        values = np.asarray(counts, np.float64)  # exact for every count that a picture can have
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"RLE counts: expected numbers or text ({error})") from error
    whole = values.ndim == 1 and bool(
        np.all((values >= 0) & (values <= pixels) & (values == np.floor(values)))
    )
    if not whole:
        raise DataError("RLE counts: expected a list of run lengths from 0 to the picture's pixels")
    return values.astype(np.uint32)
