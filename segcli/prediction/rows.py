"""Objects of one picture as a predictions file holds them, unpacked only when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segcli.errors import DataError
from segcli.instances import Instances
from segcli.masks import Index, Masks

Id = int | str
Size = tuple[int, int]
Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class ScoredObjects:
    """N objects of one picture in the precision of the file: evaluation must not round (`Instances` is float32).

    Attributes:
        labels: int32 (N,), index into the categories that belong to it.
        scores: float64 (N,).
        boxes: float64 (N, 4), x, y, width, height in pixels of the original picture.
        masks: of the original picture, or None.
    """

    labels: NDArray[np.int32]
    scores: NDArray[np.float64]
    boxes: NDArray[np.float64]
    masks: Masks | None

    @classmethod
    def from_instances(cls, instances: Instances) -> ScoredObjects:
        """Of what a model found.

        Raises:
            DataError: the instances carry no scores.
        """
        if instances.scores is None:
            raise DataError("objects without scores cannot be evaluated as predictions")
        boxes = instances.boxes.astype(np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        scores = instances.scores.astype(np.float64)
        return cls(instances.labels, scores, boxes, instances.masks)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Index) -> ScoredObjects:
        rows = np.atleast_1d(np.arange(len(self))[index])
        masks = None if self.masks is None else self.masks[rows]
        return ScoredObjects(self.labels[rows], self.scores[rows], self.boxes[rows], masks)


@dataclass(frozen=True, eq=False)
class PredictedPicture:
    """One picture and the rows predicted on it, not yet unpacked.

    Attributes:
        source: the file that the rows come from, for messages.
        image_id: as in the file; a number from 1 for shards.
        file_name: as in the file, never opened; None in a bare list.
        size: (H, W) in pixels, or None where the file does not say.
        rows: the objects as in the file.
        label_of_id: category id to label.
        extra: what else the file says of the picture (`pts` and `time_base` of a video frame).
    """

    source: Path
    image_id: Id
    file_name: str | None
    size: Size | None
    rows: tuple[Row, ...]
    label_of_id: Mapping[Id, int]
    extra: dict[str, Any] = field(default_factory=dict)

    def objects(self, size: Size | None = None) -> ScoredObjects:
        """The objects, in the numbers of the file.

        Args:
            size: (H, W) that the masks must have; None = what the file says.

        Raises:
            DataError: a row is damaged, has no score, or has a mask of another size.
        """
        scores = np.array([self._number(row, "score") for row in self.rows], np.float64)
        labels, boxes, masks = self._geometry(size)
        return ScoredObjects(labels, scores, boxes, masks)

    def instances(self, size: Size | None = None) -> Instances:
        """The objects as `Instances`; scores are None where no row of the picture has one.

        Args:
            size: (H, W) of the picture in pixels; None = what the file says.

        Raises:
            DataError: a row is damaged, or nobody knows the picture's size.
        """
        size = size or self.size
        if size is None:
            raise DataError(f"{self._where()}: the file does not say how large the picture is")
        labels, boxes, masks = self._geometry(size)
        scores = None
        if not self.rows or any("score" in row for row in self.rows):
            scores = np.array([self._number(row, "score") for row in self.rows], np.float32)
        corners = np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), axis=1)
        return Instances(size, corners.astype(np.float32), labels, scores, masks)

    def _geometry(
        self, size: Size | None
    ) -> tuple[NDArray[np.int32], NDArray[np.float64], Masks | None]:
        labels = np.array([self.label_of_id[row["category_id"]] for row in self.rows], np.int32)
        masks = self._masks(size or self.size)
        boxes = np.zeros((len(self.rows), 4), np.float64)
        if masks is not None:
            boxes = masks.boxes().astype(np.float64)
            boxes[:, 2:] -= boxes[:, :2]
        for i, row in enumerate(self.rows):
            if row.get("bbox"):
                boxes[i] = self._box(row)
        return labels, boxes, masks

    def _masks(self, size: Size | None) -> Masks | None:
        """None where no row has one; a row without one among others gets an empty mask."""
        if self.rows and not any(has_mask(row) for row in self.rows):
            return None
        if size is None:
            if not self.rows:
                return None
            raise DataError(
                f"{self._where()}: masks, but the file does not say how large the picture is"
            )
        try:
            return Masks.from_coco(
                (as_rle(row.get("segmentation"), size) for row in self.rows), size
            )
        except (DataError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(f"{self._where()}: unusable segmentation ({_reason(error)})") from error

    def _box(self, row: Row) -> NDArray[np.float64]:
        try:
            box = np.asarray(row["bbox"], np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"{self._where()}: damaged bbox ({_reason(error)})") from error
        if box.shape != (4,) or not np.isfinite(box).all():
            raise DataError(
                f"{self._where()}: bbox {row['bbox']!r}: expected 4 numbers x, y, width, height"
            )
        return box

    def _number(self, row: Row, key: str) -> float:
        value = row.get(key)
        if not isinstance(value, int | float) or not np.isfinite(value):
            raise DataError(
                f"{self._where()}: {key} {value!r}, expected a number; is this a file of predictions?"
            )
        return float(value)

    def _where(self) -> str:
        return f"{self.source}: picture {self.file_name or self.image_id}"


def has_mask(row: Row) -> bool:
    """Whether a row carries a segmentation; other tools write `[]` or null where there is none."""
    return bool(row.get("segmentation"))


def as_rle(segmentation: Any, size: Size) -> dict[str, Any]:
    """COCO's `segmentation` field as one RLE dict; polygons are rasterised by pycocotools' rule.

    Args:
        segmentation: RLE dict, list of flat polygons, or nothing (an empty mask).
        size: (H, W) of the picture in pixels.
    """
    if isinstance(segmentation, dict):
        return segmentation
    # what has fewer than 3 points covers no pixel (and pycocotools would take 2 points for a box)
    polygons = [np.asarray(p, np.float64) for p in segmentation or ()]
    polygons = [p for p in polygons if p.size >= 6]
    if not polygons:
        return {"size": list(size), "counts": [size[0] * size[1]]}
    if any(p.ndim != 1 or p.size % 2 or not np.isfinite(p).all() for p in polygons):
        raise DataError("polygon: expected a flat list of numbers x, y, x, y …")
    from pycocotools import mask as coco_mask  # C extension; RLE needs none of it

    parts = coco_mask.frPyObjects([p.tolist() for p in polygons], *size)
    merged: dict[str, Any] = coco_mask.merge(parts)
    return merged


def _reason(error: Exception) -> str:
    return f"{error} is absent" if isinstance(error, KeyError) else str(error)
