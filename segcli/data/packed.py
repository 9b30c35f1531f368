"""A dataset's pictures and annotations as one block of bytes that loader workers share instead of copying.

A list of Python objects is copied page by page by every worker that looks at it, since looking changes reference
counts. Here are no objects: numbers lie in columns of one block, and a `Picture` is made when it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segcli.annotations import Annotation, Picture
from segcli.errors import DataError
from segcli.masks import Masks

_ALIGN = 16  # bytes; every column begins at a multiple
# column: dtype and numbers per row. `…_ends` hold one row more than there are things: thing i is [ends[i], ends[i+1])
_COLUMNS: dict[str, tuple[str, int]] = {
    "size": ("int32", 2),  # per picture: H, W
    "raw_pixels": ("uint8", 1),
    "dataset": ("int32", 1),
    "name_ends": ("int64", 1),
    "path_ends": ("int64", 1),
    "annotation_ends": ("int64", 1),
    "label": ("int32", 1),  # per annotation
    "crowd": ("uint8", 1),
    "bbox": ("float64", 4),
    "area": ("float64", 1),
    "part_ends": ("int64", 1),
    "count_ends": ("int64", 1),
    "point_ends": ("int64", 1),  # per part of a polygon
    "points": ("float64", 2),
    "counts": ("uint32", 1),
    "names": ("uint8", 1),
    "paths": ("uint8", 1),
}


@dataclass(frozen=True)
class _Place:
    """Where a column lies in the block."""

    start: int
    rows: int
    dtype: str
    width: int


class PackedPictures(Sequence[Picture]):
    """Pictures in one block of bytes.

    Reads like a list of `Picture`, with the same polygons (float64, exact), run lengths, labels and sizes; only ids
    are numbered anew (pictures from 0, annotations from 0 over the whole dataset). Worker processes share the block:
    forked ones by the system's copy-on-write, which nothing here triggers; spawned ones because torch hands tensors
    over by shared memory.

    Attributes:
        block: uint8 (B,), all columns behind one another.
    """

    def __init__(self, block: Tensor, places: dict[str, _Place]) -> None:
        self.block = block
        self._places = places

    @classmethod
    def of(
        cls, pictures: Iterable[Picture], datasets: Iterable[int] | None = None
    ) -> PackedPictures:
        """Pack pictures.

        Args:
            pictures: read once, so a generator will do.
            datasets: to which dataset each picture belongs, where there are several.

        Raises:
            DataError: a run-length mask is of another size than its picture.
        """
        columns = _columns(pictures)
        if datasets is not None:
            columns["dataset"] = np.fromiter(datasets, np.int32)
        if len(columns["dataset"]) != len(columns["size"]):
            raise ValueError(f"datasets: expected one number for each of {len(columns['size'])}")
        places, end = {}, 0
        for name, (dtype, width) in _COLUMNS.items():
            places[name] = _Place(end, len(columns[name]), dtype, width)
            end += -(-columns[name].nbytes // _ALIGN) * _ALIGN
        packed = cls(torch.zeros(end, dtype=torch.uint8), places)
        for name in _COLUMNS:
            packed.column(name)[...] = columns.pop(name)
        return packed

    @property
    def nbytes(self) -> int:
        """Bytes of the block."""
        return self.block.numel()

    def column(self, name: str) -> NDArray[Any]:
        """A column as a view of the block: use it at once, the block moves when it is handed to a spawned worker."""
        place = self._places[name]
        size = np.dtype(place.dtype).itemsize * place.rows * place.width
        values = self.block.numpy()[place.start : place.start + size].view(place.dtype)
        return values.reshape(place.rows, place.width) if place.width > 1 else values

    def shapes(self) -> NDArray[np.float64]:
        """float64 (P,): height / width of every picture."""
        size = self.column("size")
        shapes: NDArray[np.float64] = size[:, 0] / size[:, 1]
        return shapes

    def dataset_of(self, index: int) -> int:
        """To which dataset picture `index` belongs."""
        return int(self.column("dataset")[index])

    def __len__(self) -> int:
        return self._places["size"].rows

    @overload
    def __getitem__(self, index: int) -> Picture: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Picture, ...]: ...
    def __getitem__(self, index: int | slice) -> Picture | tuple[Picture, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        number = range(len(self))[index]  # negative ones count from the end, others raise
        H, W = (int(v) for v in self.column("size")[number])
        path = self._text("path", number)
        return Picture(
            id=number,
            file_name=self._text("name", number),
            path=Path(path) if path else None,
            size=(H, W),
            annotations=tuple(self._annotations(number, (H, W))),
            raw_pixels=bool(self.column("raw_pixels")[number]),
        )

    def _text(self, kind: str, number: int) -> str:
        first, last = self.column(f"{kind}_ends")[number : number + 2]
        raw: bytes = self.column(f"{kind}s")[first:last].tobytes()
        return raw.decode("utf-8", "surrogateescape")

    def _annotations(self, number: int, size: tuple[int, int]) -> Iterator[Annotation]:
        first, last = (int(v) for v in self.column("annotation_ends")[number : number + 2])
        label, crowd, area = (
            self.column(c)[first:last].tolist() for c in ("label", "crowd", "area")
        )
        bbox = self.column("bbox")[first:last].copy()
        counts = self._slices("counts", self.column("count_ends")[first : last + 1])
        part_ends = self.column("part_ends")[first : last + 1].copy()
        point_ends = self.column("point_ends")[part_ends[0] : part_ends[-1] + 1]
        parts = self._slices("points", point_ends)
        for i, runs in enumerate(counts):
            own = parts[part_ends[i] - part_ends[0] : part_ends[i + 1] - part_ends[0]]
            rle = Masks(runs, np.array([0, len(runs)]), size) if len(runs) else None
            yield Annotation(
                id=first + i,
                label=label[i],
                bbox=bbox[i],
                area=area[i],
                iscrowd=bool(crowd[i]),
                polygons=None if rle is not None else tuple(own),
                rle=rle,
            )

    def _slices(self, name: str, ends: NDArray[np.int64]) -> list[NDArray[Any]]:
        """Copies of the rows between neighbouring `ends`."""
        rows = self.column(name)[ends[0] : ends[-1]].copy()
        return np.split(rows, ends[1:-1] - ends[0]) if len(ends) > 1 else []


def _columns(pictures: Iterable[Picture]) -> dict[str, NDArray[Any]]:
    """Every column as one array; `…_ends` from lengths."""
    # bytes that grow in place: millions of small arrays would leave the heap full of holes
    rows = {name: bytearray() for name in _COLUMNS}
    for picture in pictures:
        for name, values in _rows_of(picture).items():
            rows[name] += np.asarray(values, _COLUMNS[name][0]).tobytes()
    columns: dict[str, NDArray[Any]] = {}
    for name, (dtype, width) in _COLUMNS.items():
        column = np.frombuffer(rows.pop(name), dtype)
        if name.endswith("_ends"):
            column = np.concatenate(([0], np.cumsum(column)))
        columns[name] = column.reshape(-1, width) if width > 1 else column
    return columns


def _rows_of(picture: Picture) -> dict[str, Any]:
    """What one picture adds to each column; lengths for the `…_ends`."""
    name = _bytes_of(picture.file_name)
    path = _bytes_of("" if picture.path is None else str(picture.path))
    annotations = picture.annotations
    parts = [part for a in annotations for part in a.polygons or ()]
    runs = [_runs(a, picture) for a in annotations]
    return {
        "size": picture.size,
        "raw_pixels": [picture.raw_pixels],
        "dataset": [0],
        "names": name, "name_ends": [len(name)],
        "paths": path, "path_ends": [len(path)],
        "annotation_ends": [len(annotations)],
        "label": [a.label for a in annotations],
        "crowd": [a.iscrowd for a in annotations],
        "bbox": [a.bbox for a in annotations],
        "area": [a.area for a in annotations],
        "part_ends": [len(a.polygons or ()) for a in annotations],
        "point_ends": [len(part) for part in parts],
        "points": np.concatenate(parts) if parts else [],
        "count_ends": [len(r) for r in runs],
        "counts": np.concatenate(runs) if runs else [],
    }  # fmt: skip


def _bytes_of(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8)


def _runs(annotation: Annotation, picture: Picture) -> NDArray[np.uint32]:
    if annotation.rle is None:
        return np.zeros(0, np.uint32)
    if tuple(annotation.rle.size) != tuple(picture.size):
        raise DataError(
            f"{picture.file_name}: a mask of size {annotation.rle.size} in a picture of size {picture.size}"
        )
    return annotation.rle.runs(0)
