"""Objects of one picture as tight mask crops: what augmentation cuts, covers and counts. Never a full-size mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segcli.annotations import Annotation, Picture

_UPSAMPLING = 5  # pycocotools draws polygons on a grid five times as fine (maskApi.c, rleFrPoly)

Crop = tuple[NDArray[np.bool_], int, int]


@dataclass(frozen=True, eq=False)
class Objects:
    """G objects.

    Attributes:
        crops: one bool (h, w) per object, tight: its first and last rows and columns hold pixels of the object.
        corners: int64 (G, 2), x, y of each crop's top-left pixel.
        labels: int64 (G,), from 1.
    """

    crops: list[NDArray[np.bool_]]
    corners: NDArray[np.int64]
    labels: NDArray[np.int64]

    @classmethod
    def of(cls, crops: Sequence[Crop | None], labels: Sequence[int]) -> Objects:
        """From one crop per label; those without pixels (None) are left out."""
        kept = [(c, label) for c, label in zip(crops, labels, strict=True) if c is not None]
        return cls(
            [c[0] for c, _ in kept],
            np.array([c[1:] for c, _ in kept], np.int64).reshape(-1, 2),
            np.array([label for _, label in kept], np.int64),
        )

    def __len__(self) -> int:
        return len(self.crops)

    def boxes(self) -> NDArray[np.float32]:
        """float32 (G, 4): tight xyxy boxes in pixels, far edges exclusive."""
        sides = np.array([c.shape[::-1] for c in self.crops], np.int64).reshape(-1, 2)
        return np.concatenate((self.corners, self.corners + sides), axis=1).astype(np.float32)

    def take(self, rows: NDArray[np.int64]) -> Objects:
        """The objects of the given rows, in that order."""
        return Objects([self.crops[i] for i in rows], self.corners[rows], self.labels[rows])

    def cut(self, window: tuple[int, int, int, int]) -> Objects:
        """What is seen of them in a window (x0, y0, x1, y1) of the picture, in the window's frame."""
        x0, y0, x1, y1 = window
        seen: list[Crop | None] = []
        for crop, (x, y) in zip(self.crops, self.corners.tolist(), strict=True):
            left, top = max(x0 - x, 0), max(y0 - y, 0)
            part = crop[top : max(y1 - y, 0), left : max(x1 - x, 0)]
            seen.append(tight(part, x + left - x0, y + top - y0))
        return Objects.of(seen, self.labels.tolist())


def objects_of(picture: Picture) -> Objects:
    """The objects of a picture that have pixels; crowds are left out."""
    single = [a for a in picture.annotations if not a.iscrowd]
    return Objects.of([_crop(a, picture.size) for a in single], [a.label + 1 for a in single])


def tight(mask: NDArray[np.bool_], x: int, y: int) -> Crop | None:
    """Cut off empty rows and columns around a mask.

    Args:
        mask: bool (h, w).
        x: of its left column in the picture.
        y: of its top row.

    Returns:
        The tight crop and its corner; None where no pixel is set.
    """
    columns = np.flatnonzero(mask.any(axis=0))
    if len(columns) == 0:
        return None
    rows = np.flatnonzero(mask.any(axis=1))
    top, left = int(rows[0]), int(columns[0])
    return mask[top : rows[-1] + 1, left : columns[-1] + 1], x + left, y + top


def _crop(annotation: Annotation, size: tuple[int, int]) -> Crop | None:
    if annotation.rle is not None:
        return crop_of_runs(annotation.rle.runs(0), size)
    assert annotation.polygons is not None
    return crop_of_polygons(annotation.polygons, size)


def crop_of_polygons(polygons: Sequence[NDArray[np.float64]], size: tuple[int, int]) -> Crop | None:
    """Draw an object by pycocotools' rule, on a canvas of its own size instead of the picture's.

    Points are moved on pycocotools' own fine grid, so that the pixels are those of a drawing on the whole picture.

    Args:
        polygons: float64 (P, 2) arrays of x, y; their union is the object.
        size: (H, W) of the picture; what sticks out of it is cut off.
    """
    from pycocotools import mask as coco_mask

    points = np.concatenate(polygons)
    x0, y0 = (max(int(v), 0) for v in np.floor(points.min(axis=0)) - 1)
    x1, y1 = np.minimum(np.ceil(points.max(axis=0)) + 2, size[::-1]).astype(int).tolist()
    if x1 <= x0 or y1 <= y0:
        return None
    corner = np.array([x0, y0], np.float64)
    fine = np.trunc(points * _UPSAMPLING + 0.5) - corner * _UPSAMPLING
    # an axis that is not moved keeps its numbers: negative ones are truncated towards 0, which a division undoes
    grid = np.where(corner > 0, fine / _UPSAMPLING, points)
    ends = np.cumsum([len(p) for p in polygons])[:-1]
    flat = [part.reshape(-1).tolist() for part in np.split(grid, ends)]
    drawn = coco_mask.decode(coco_mask.frPyObjects(flat, y1 - y0, x1 - x0))  # uint8 (h, w, parts)
    return tight(drawn.any(axis=2), x0, y0)


def crop_of_runs(runs: NDArray[np.uint32], size: tuple[int, int]) -> Crop | None:
    """Decode one run-length mask into its tight crop.

    Args:
        runs: uint32 (K,), of 0 and 1 in turn, column by column.
        size: (H, W) of the picture.
    """
    edges = np.cumsum(runs, dtype=np.int64)
    edges = edges[: len(edges) // 2 * 2].reshape(-1, 2)  # start and end of each run of 1
    edges = edges[edges[:, 1] > edges[:, 0]]
    if len(edges) == 0:
        return None
    H = size[0]
    first, last = edges[:, 0], edges[:, 1] - 1
    (x_first, y_first), (x_last, y_last) = np.divmod(first, H), np.divmod(last, H)
    over = bool(np.any(x_first != x_last))  # a run over several columns: full height is needed
    y0, y1 = (0, H) if over else (int(y_first.min()), int(y_last.max()) + 1)
    x0, x1 = int(x_first[0]), int(x_last[-1]) + 1
    h, w = y1 - y0, x1 - x0
    starts = (x_first - x0) * h + y_first - y0
    stops = (x_last - x0) * h + y_last - y0 + 1
    steps = np.bincount(starts, minlength=h * w + 1) - np.bincount(stops, minlength=h * w + 1)
    return np.cumsum(steps[:-1]).astype(bool).reshape(w, h).T, x0, y0
