"""One annotation's `segmentation` field: polygons or run lengths, checked, with what is wrong told apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segcli.annotations import Annotation
from segcli.data.findings import Fault, as_number, short
from segcli.errors import DataError
from segcli.masks import Masks

_REDRAW = "draw the object again"
# pycocotools walks along every edge pixel by pixel: a coordinate of 1e9 would take all memory
_FARTHEST = 10


@dataclass(frozen=True, eq=False)
class Shape:
    """What an object covers. Exactly one of `polygons` and `rle` is set.

    Attributes:
        polygons: float64 (P, 2) arrays of x, y in pixels of the picture, one per part.
        rle: one mask.
    """

    polygons: tuple[NDArray[np.float64], ...] | None = None
    rle: Masks | None = None

    def bbox(self, size: tuple[int, int]) -> NDArray[np.float64]:
        """float64 (4,): tight x, y, width, height in pixels, cut to the picture of (H, W)."""
        if self.rle is not None:
            low, high = np.split(self.rle.boxes()[0].astype(np.float64), 2)
        else:
            points = np.concatenate(self.polygons or ())
            edge = np.array(size[::-1], np.float64)
            low, high = np.clip((points.min(axis=0), points.max(axis=0)), 0, edge)
        return np.concatenate((low, high - low))

    def area(self, size: tuple[int, int]) -> float:
        """Pixels of the mask at (H, W), rasterised by pycocotools' rule."""
        box = np.zeros(4)
        annotation = Annotation(0, 0, box, 0.0, polygons=self.polygons, rle=self.rle)
        return float(annotation.mask(size).area()[0])


Read = tuple[Shape | None, tuple[Fault, ...]]


def read_segmentation(value: Any, size: tuple[int, int]) -> Read:
    """Check one `segmentation` field.

    Args:
        value: as in the json.
        size: (H, W) of the picture in pixels.

    Returns:
        The shape, with what was repaired; or None, with the reasons why it cannot be used.
    """
    if isinstance(value, dict) and value:
        return _read_rle(value, size)
    if isinstance(value, list) and value and value != [[]]:
        return _read_polygons(value, size)
    if value is None or value in ([], [[]], {}):
        remedy = "a box alone has no mask: annotate its outline"
        return None, (Fault("no segmentation", short(value), remedy),)
    return None, (_not_understood(value),)


def _not_understood(value: Any) -> Fault:
    remedy = "write a list of polygons [x1, y1, x2, y2, …] or an RLE with size and counts"
    return Fault("segmentation not understood", short(value), remedy)


def _read_rle(entry: dict[str, Any], size: tuple[int, int]) -> Read:
    if "counts" not in entry or "size" not in entry:
        return None, (_not_understood(entry),)
    try:
        found = tuple(int(v) for v in entry["size"])
    except (TypeError, ValueError, OverflowError):
        found = ()
    if found != size:
        return None, (_other_size(entry["size"], found, size),)
    try:
        rle = Masks.from_coco([{"size": found, "counts": entry["counts"]}], size)
    except (DataError, TypeError, ValueError, OverflowError) as error:
        return None, (Fault("damaged RLE", f"{short(entry['counts'])}: {error}", _REDRAW),)
    if not rle.counts[1::2].any():
        return None, (Fault("mask without a pixel", "an RLE of area 0", _REDRAW),)
    return Shape(rle=rle), ()


def _other_size(value: Any, found: tuple[int, ...], size: tuple[int, int]) -> Fault:
    swapped = found == size[::-1]
    remedy = (
        "RLE sizes are [height, width]: swap them in the exporter, with the counts column by column"
        if swapped
        else "export the annotations anew for the pictures' own size"
    )
    return Fault(
        "RLE of another size", f"size {short(value)}, the picture has {list(size)}", remedy
    )


def _read_polygons(value: list[Any], size: tuple[int, int]) -> Read:
    parts, repair = _parts_of(value)
    polygons: list[NDArray[np.float64]] = []
    faults: list[Fault] = []
    for part in parts:
        points = _read_points(part, size)
        if isinstance(points, Fault):
            faults.append(points)
        else:
            polygons.append(points)
    if not polygons:
        return None, tuple(faults)
    repaired = [
        f._replace(remedy=f"this part left out, the others kept; {f.remedy}") for f in faults
    ]
    shape = Shape(polygons=tuple(polygons))
    if repair is not None:
        repaired.append(repair)
    return shape, tuple(repaired + _too_small(shape, polygons[0], size))


def _parts_of(value: list[Any]) -> tuple[list[Any], Fault | None]:
    """The polygons of a list, also where it is one polygon without the outer list, or a list of points."""
    if not isinstance(value[0], list):
        if as_number(value[0]) is None:
            return value, None
        remedy = "kept as one polygon; put it into a list"
        return [value], Fault("polygon outside a list of polygons", short(value), remedy)
    if len(value) > 2 and all(isinstance(p, list) and len(p) == 2 for p in value):
        remedy = "kept as one polygon; write [x1, y1, x2, y2, …]"
        return [value], Fault("polygon as a list of points", short(value), remedy)
    return value, None


def _read_points(part: Any, size: tuple[int, int]) -> NDArray[np.float64] | Fault:
    """One polygon as float64 (P, 2), or what is wrong with it."""
    if not isinstance(part, list):
        return _not_understood(part)
    try:
        numbers = np.array(part, np.float64).reshape(-1)
    except (TypeError, ValueError, OverflowError):
        return Fault("polygon coordinates that are no numbers", short(part), _REDRAW)
    if len(numbers) % 2:
        found = f"{len(numbers)} numbers"
        return Fault("polygon with an odd number of coordinates", found, _REDRAW)
    if len(numbers) < 6:
        found = f"{len(numbers) // 2} points"
        return Fault("polygon with fewer than 3 points", found, _REDRAW)
    return _place_fault(numbers.reshape(-1, 2), size)


def _place_fault(points: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64] | Fault:
    """`points` float64 (P, 2) themselves, or what is wrong with where they lie."""
    H, W = size
    x0, y0 = points.min(axis=0).tolist()
    x1, y1 = points.max(axis=0).tolist()
    farthest = _FARTHEST * max(H, W)
    found = f"x {x0:g} to {x1:g}, y {y0:g} to {y1:g}; the picture is {W} × {H}"
    # also true of NaN, which compares as false
    if not (max(abs(x0), abs(x1), abs(y0), abs(y1)) <= farthest and x0 == x0 and y0 == y0):
        finite = bool(np.isfinite(points).all())
        kind = (
            "polygon outside the picture" if finite else "polygon coordinates that are no numbers"
        )
        return Fault(kind, found, "check the picture's size and the exporter")
    if x1 <= 0 or y1 <= 0 or x0 >= W or y0 >= H:
        return Fault(
            "polygon outside the picture", found, "check the picture's size and the exporter"
        )
    if _is_line(points) and Shape(polygons=(points,)).area(size) == 0:
        return Fault("polygon without area", found, _REDRAW)
    return points


def _is_line(points: NDArray[np.float64]) -> bool:
    """Whether the enclosed area is 0; true also of some crossing polygons, which do cover pixels."""
    x, y = points[:, 0], points[:, 1]
    twice = np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1]) + x[-1] * y[0] - x[0] * y[-1]
    return bool(abs(twice) < 1e-6)


def _too_small(shape: Shape, first: NDArray[np.float64], size: tuple[int, int]) -> list[Fault]:
    """A note where no side of the box of all polygons, of which `first` is one, is a pixel long."""
    if np.abs(first - first[0]).max() >= 1:  # spares nearly all polygons the whole box
        return []
    _, _, width, height = shape.bbox(size).tolist()
    if max(width, height) >= 1:
        return []
    found = f"{width:.3g} × {height:.3g} pixels"
    remedy = "kept; were the coordinates meant as fractions of the picture? They are pixels in COCO"
    return [Fault("object smaller than a pixel", found, remedy)]
