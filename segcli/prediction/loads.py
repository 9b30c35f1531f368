"""Decoding and preparing pictures, in threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from segcli.prediction.profile import DECODE, PREPARE, StageTimes
from segcli.prediction.reasons import reason

if TYPE_CHECKING:
    from torch import Tensor

    from segcli.prediction.pipeline import Source

LARGE = (
    25_000_000  # pixels; of pictures beyond this only one at a time is decoded, and one prepared
)


@runtime_checkable
class ReadsTogether(Protocol):
    """A reader that is faster with many pictures at once."""

    def together(self, sources: Sequence[Source]) -> list[NDArray[np.uint8] | Tensor | Exception]:
        """Per picture what `read` gives, which may lie on another device, or why it cannot be read."""


class Prepares(Protocol):
    """The first half of a predictor."""

    def prepare(self, image: Any) -> Any:
        """Make uint8 (H, W, 3) RGB ready; called from several threads."""


@dataclass(frozen=True)
class Loaded:
    """A picture on its way: either `prepared` or `error` is set."""

    source: Source
    prepared: Any = None
    size: tuple[int, int] | None = None
    error: str | None = None


class Loader:
    """Decodes and prepares one picture; called from several threads."""

    def __init__(
        self,
        predictor: Prepares,
        read: Callable[[Source], NDArray[np.uint8]],
        times: StageTimes,
    ) -> None:
        self._predictor, self._read, self._times = predictor, read, times
        self._large = threading.Lock()

    def __call__(self, source: Source) -> Loaded:
        """One picture; what is wrong with it becomes its error."""
        try:
            with self._times.stage(DECODE):
                image = self._read(source)
        except Exception as error:
            return Loaded(source, error=reason(error, source.path))
        return self._prepared(source, image)

    def batch(self, read: ReadsTogether, sources: Sequence[Source]) -> list[Loaded]:
        """The same of many."""
        with self._times.stage(DECODE, len(sources)):
            found = read.together(sources)
        return [self._prepared(*pair) for pair in zip(sources, found, strict=True)]

    def _prepared(self, source: Source, image: NDArray[np.uint8] | Tensor | Exception) -> Loaded:
        if isinstance(image, Exception):
            return Loaded(source, error=reason(image, source.path))
        size = (int(image.shape[0]), int(image.shape[1]))
        try:
            with self._turn(size), self._times.stage(PREPARE):
                prepared = self._predictor.prepare(image)
        except Exception as error:
            return Loaded(source, error=reason(error, source.path))
        return Loaded(source, prepared, size)

    def _turn(self, size: tuple[int, int]) -> AbstractContextManager[object]:
        """Large pictures one after another: as float32 each takes 12 bytes a pixel, several times over."""
        return self._large if size[0] * size[1] > LARGE else nullcontext()
