"""Ground truth in its own form: polygons stay polygons, RLE stays RLE, annotated numbers are kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segcli.categories import Categories
from segcli.masks import Masks


@dataclass(frozen=True, eq=False)
class Annotation:
    """One annotated object. Exactly one of `polygons` and `rle` is set.

    Attributes:
        id: as in the file (int or str).
        label: index into `Categories`.
        bbox: float64 (4,), x, y, width, height in pixels of the picture, as annotated.
        area: in square pixels, as annotated.
        iscrowd: a region of many objects; ignored in training, matched leniently in evaluation.
        polygons: float64 (P, 2) arrays of x, y, one per part; their union is the object.
        rle: one mask.
    """

    id: int | str
    label: int
    bbox: NDArray[np.float64]
    area: float
    iscrowd: bool = False
    polygons: tuple[NDArray[np.float64], ...] | None = None
    rle: Masks | None = None

    def mask(self, size: tuple[int, int]) -> Masks:
        """The object as one mask at (H, W), rasterised by pycocotools' own rule."""
        if self.rle is not None:
            return self.rle
        from pycocotools import mask as coco_mask  # C extension; not needed to list a dataset

        assert self.polygons is not None
        parts = coco_mask.frPyObjects([p.reshape(-1).tolist() for p in self.polygons], *size)
        merged: dict[str, Any] = coco_mask.merge(parts)
        return Masks.from_coco([merged], size)

    def coco_segmentation(self) -> Any:
        """What COCO's `segmentation` field holds: a list of flat polygons, or a compressed RLE."""
        if self.rle is not None:
            return self.rle.coco(0)
        return [p.reshape(-1).tolist() for p in self.polygons or ()]


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture of a dataset and what is annotated on it.

    Attributes:
        id: as in the file.
        file_name: as in the file, with folders; also the key by which predictions are joined.
        path: where the file was found; None where pictures are not needed (evaluation of predictions).
        size: (H, W) in pixels, as annotated.
        annotations: usable ones only; what was left out is in `Dataset.problems`.
        raw_pixels: the annotation's size fits only the unrotated file, so EXIF rotation is not applied.
    """

    id: int | str
    file_name: str
    path: Path | None
    size: tuple[int, int]
    annotations: tuple[Annotation, ...] = ()
    raw_pixels: bool = False


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a dataset.

    Attributes:
        kind: short name for counting, e.g. `polygon with fewer than 3 points`.
        where: file, picture or annotation id.
        found: what was found.
        remedy: what was done about it, or what to do.
        left_out: something was left out for it; False for what was repaired or is only worth knowing.
    """

    kind: str
    where: str
    found: str
    remedy: str
    left_out: bool = True


@dataclass(frozen=True, eq=False)
class Dataset:
    """A dataset as read: pictures in the order of the file, classes, and all that was wrong.

    Attributes:
        source: the annotation file.
        images: the folder in which pictures were looked for; None where none were.
        pictures: usable ones.
        categories: the classes.
        problems: what was left out or repaired, one row each.
    """

    source: Path
    images: Path | None
    pictures: tuple[Picture, ...]
    categories: Categories
    problems: tuple[Problem, ...] = field(default=())
