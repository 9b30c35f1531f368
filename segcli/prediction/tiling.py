"""Pictures too large for one look: cut into overlapping tiles, predicted tile by tile, put together again."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segcli.config import MAX_OVERLAP, MIN_TILE
from segcli.errors import UsageError
from segcli.instances import Instances
from segcli.prediction.ahead import map_ahead
from segcli.prediction.merging import merge_tiles
from segcli.prediction.overlapping import Overlaps, in_turn
from segcli.prediction.pipeline import PicturePredictor, SumsUp
from segcli.prediction.profile import NO_TIMES, HasStages, StageTimes


@dataclass(frozen=True, eq=False)
class LargePicture:
    """A picture that takes more than one tile.

    Attributes:
        image: uint8 (H, W, 3), RGB.
        tiles: int64 (T, 4), xyxy in pixels, the far edges exclusive.
    """

    image: NDArray[np.uint8]
    tiles: NDArray[np.int64]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.image.shape[0], self.image.shape[1]

    def cut(self, tile: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The pixels of one tile, uint8 (h, w, 3); a view."""
        x0, y0, x1, y1 = tile.tolist()
        return self.image[y0:y1, x0:x1]


def cut_into_tiles(size: tuple[int, int], tile: int, overlap: float) -> NDArray[np.int64]:
    """Where the tiles of a picture lie, row by row.

    Args:
        size: (H, W) of the picture in pixels.
        tile: side of a tile in pixels; a shorter side of the picture makes all tiles as short.
        overlap: share of a tile's side that its neighbour shows too. The last row and column are moved inward to end
            at the border, so they overlap more.

    Returns:
        int64 (T, 4), xyxy in pixels, the far edges exclusive; together they cover the picture.
    """
    step = tile - round(tile * overlap)
    tops, lefts = ([*range(0, side - tile, step), max(side - tile, 0)] for side in size)
    height, width = (min(tile, side) for side in size)
    corners = [(x, y, x + width, y + height) for y in tops for x in lefts]
    return np.array(corners, np.int64)


class TiledPredictor:
    """A predictor for large pictures around one for ordinary ones.

    Pictures are taken one at a time, whatever the batch size: their tiles fill the batches, and no more than the
    uint8 pixels of a picture are kept. A picture not larger than a tile is predicted as it is, as with `batch_size` 1
    and no tiles. How objects of several tiles become one is told in `segcli.prediction.merging`.

    Attributes:
        categories: one per label of the instances.
        batch_size: pictures per step, 1.
        resolved: everything that changes predictions; `tile_batch_size` is the number of tiles per forward pass.
    """

    def __init__(
        self,
        inner: PicturePredictor,
        tile: int,
        overlap: float,
        *,
        max_detections: int | None = None,
    ) -> None:
        """Check the settings.

        Args:
            inner: predicts the tiles; its own limit of objects holds for each tile.
            tile: side of a tile in pixels of the original picture.
            overlap: share of a tile's side that its neighbour shows too.
            max_detections: most objects of a whole picture; None = no limit.

        Raises:
            UsageError: the tile is too small or the overlap out of range.
        """
        if tile < MIN_TILE:
            raise UsageError(f"--tile {tile}: expected at least {MIN_TILE} pixels")
        if not 0 <= overlap <= MAX_OVERLAP:
            raise UsageError(f"--overlap {overlap}: expected 0 to {MAX_OVERLAP}")
        self.inner = inner
        self.tile = tile
        self.overlap = overlap
        self.max_detections = max_detections
        self.categories = inner.categories
        self.batch_size = 1
        self._stages = NO_TIMES

    @property
    def stages(self) -> StageTimes:
        """Where the seconds of the parts go: merging, and what the inner predictor measures."""
        return self._stages

    @stages.setter
    def stages(self, stages: StageTimes) -> None:
        self._stages = stages
        if isinstance(self.inner, HasStages):
            self.inner.stages = stages

    def summary(self) -> str | None:
        """What the inner predictor says at the end of a job."""
        return self.inner.summary() if isinstance(self.inner, SumsUp) else None

    @property
    def resolved(self) -> dict[str, Any]:
        """What the model runs with, and the tiles."""
        return {
            **self.inner.resolved,
            "batch_size": self.batch_size,
            "tile_batch_size": self.inner.batch_size,
            "tile": self.tile,
            "overlap": self.overlap,
            "max_detections_of_picture": self.max_detections,
        }

    def prepare(self, image: NDArray[np.uint8]) -> Any:
        """Keep a large picture, uint8 (H, W, 3) RGB, as it is; a small one is made ready for the model."""
        tiles = cut_into_tiles((image.shape[0], image.shape[1]), self.tile, self.overlap)
        return LargePicture(image, tiles) if len(tiles) > 1 else self.inner.prepare(image)

    def predict(self, pictures: Sequence[Any]) -> list[Instances]:
        """Objects of each picture, best score first, in the frame of the original picture."""
        return [self._picture(picture) for picture in pictures]

    def _picture(self, picture: Any) -> Instances:
        if not isinstance(picture, LargePicture):
            return self.inner.predict([picture])[0]
        found = self._tiles(picture)
        with self._stages.stage("merge tiles"):
            return merge_tiles(found, picture.tiles, picture.size)[: self.max_detections]

    def _tiles(self, picture: LargePicture) -> list[Instances]:
        """Objects of each tile in its own frame; two batches of tiles are prepared ahead."""

        def prepare(tile: NDArray[np.int64]) -> Any:
            return self.inner.prepare(picture.cut(tile))

        size = self.inner.batch_size
        with closing(map_ahead(prepare, picture.tiles, ahead=2 * size)) as prepared:
            batches = iter(lambda: list(islice(prepared, size)), [])
            if not isinstance(self.inner, Overlaps):
                return list(chain.from_iterable(map(self.inner.predict, batches)))
            with closing(in_turn(self.inner, batches)) as found:
                return list(chain.from_iterable(found))
