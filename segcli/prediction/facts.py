"""What a job's model may want to know of the job before it is opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segcli.config import PredictConfig
from segcli.errors import ImageError
from segcli.images import image_info
from segcli.prediction.options import JobOptions
from segcli.prediction.pictures import PictureReader
from segcli.prediction.pipeline import Source
from segcli.prediction.resume import load_saved
from segcli.prediction.tiling import cut_into_tiles
from segcli.prediction.tta import VIEWS
from segcli.prediction.walk import Inputs

_SAMPLE = 32  # pictures by which the rest is judged


@dataclass(frozen=True)
class JobFacts:
    """What is known of the job before its model is opened.

    Attributes:
        pictures: how many there are; 0 = unknown, few.
        first: reads so many pictures from its beginning, or fewer: uint8 (H, W, 3) RGB, upright.
        files: so many files from its beginning, or fewer.
        recorded: `resolved` of a job that goes on; empty where it begins.
        in_turn: batches are predicted one after another, never side by side.
    """

    pictures: int = 0
    first: Callable[[int], Sequence[NDArray[np.uint8]]] = lambda _: ()
    files: Callable[[int], Sequence[Path]] = lambda _: ()
    recorded: Mapping[str, Any] = field(default_factory=dict)
    in_turn: bool = False

    def passes(self, config: PredictConfig) -> int:
        """How often a picture, a tile or a view of one goes through the network in the whole job, about."""
        views = VIEWS if config.tta else 1
        if config.tile is None or self.pictures == 0:
            return self.pictures * views
        tiles = [
            len(cut_into_tiles(size, config.tile, config.overlap)) for size in self._sizes()
        ] or [1]
        return round(self.pictures * views * sum(tiles) / len(tiles))

    def _sizes(self) -> list[tuple[int, int]]:
        """(H, W) of the first pictures, by their headers."""
        sizes = []
        for path in self.files(_SAMPLE):
            try:
                sizes.append(image_info(path).size)
            except (ImageError, OSError):
                continue  # it will be named among the failed
        return sizes


NO_FACTS = JobFacts()


def facts_of(inputs: Inputs, config: PredictConfig, options: JobOptions) -> JobFacts:
    """How many pictures there are, the first of them, and what an earlier start settled.

    Raises:
        OutputError: OUT belongs to another command.
    """
    saved = None if options.overwrite else load_saved(options.output, options.command)
    facts = facts_of_new(inputs, config)
    return replace(facts, recorded=saved["resolved"]) if saved else facts


def facts_of_new(inputs: Inputs, config: PredictConfig) -> JobFacts:
    """The same of a job that begins."""
    read = PictureReader(config)

    def first(count: int) -> list[NDArray[np.uint8]]:
        found: list[NDArray[np.uint8]] = []
        for picture in inputs.pictures:
            if len(found) == count:
                break
            try:
                found.append(read(Source(picture.key, inputs.path(picture.key))))
            except (ImageError, OSError):
                continue  # it will be named among the failed
        return found

    def files(count: int) -> list[Path]:
        return [inputs.path(picture.key) for picture in inputs.pictures[:count]]

    return JobFacts(len(inputs.pictures), first, files)
