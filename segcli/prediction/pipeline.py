"""Pictures through a predictor: decoded ahead in threads, predicted in the caller's thread, in order.

    plan → decode, prepare (threads) → [bounded queue] → model (caller's thread) → [bounded queue] → rows, shards

The second half is `segcli.prediction.writer`.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from segcli.categories import Categories
from segcli.errors import PredictionError, SegcliError
from segcli.instances import Instances
from segcli.prediction.profile import DECODE, MODEL, NO_PICTURES, NO_TIMES, PREPARE, StageTimes

THREADS = 2
LARGE = (
    25_000_000  # pixels; of pictures beyond this only one at a time is decoded, and one prepared
)
_EXTRA = 4  # pictures decoded ahead beyond two batches
_NAMED = 3  # files named in a message

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Source:
    """One picture to predict.

    Attributes:
        key: the name that results carry.
        path: the file.
        raw_pixels: leave out the EXIF rotation.
    """

    key: str
    path: Path
    raw_pixels: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of one picture: either `instances` or `error` is set.

    Attributes:
        source: the picture.
        instances: in the frame of the upright original.
        error: why there are none, without the path.
        size: (H, W) in pixels, upright; None where it could not be decoded.
    """

    source: Source
    instances: Instances | None
    error: str | None
    size: tuple[int, int] | None


class PicturePredictor(Protocol):
    """What a predictor has to offer; `segcli.prediction.predictor.Predictor` is the real one."""

    @property
    def categories(self) -> Categories:
        """The classes that labels point into."""

    @property
    def resolved(self) -> dict[str, Any]:
        """Everything that changes predictions, as it was settled; TOML values."""

    @property
    def batch_size(self) -> int:
        """Pictures per forward pass."""

    def prepare(self, image: NDArray[np.uint8]) -> Any:
        """Make uint8 (H, W, 3) RGB ready for `predict`; called from several threads."""

    def predict(self, pictures: Sequence[Any]) -> list[Instances]:
        """Find the objects of prepared pictures."""


@runtime_checkable
class HasLanes(Protocol):
    """A predictor whose `predict` may be called from several threads at once.

    On a CPU a network's many small steps leave cores idle; `lanes` batches side by side, each with its share of
    torch's threads (which the predictor sees to), fill them. Results must not depend on what runs beside.
    """

    @property
    def lanes(self) -> int:
        """Batches that are predicted at the same time; 1 = in the caller's thread."""


@dataclass(frozen=True)
class _Loaded:
    """A picture on its way: either `prepared` or `error` is set."""

    source: Source
    prepared: Any = None
    size: tuple[int, int] | None = None
    error: str | None = None


def run_batches(
    predictor: PicturePredictor,
    batches: Iterable[Sequence[Source]],
    *,
    read: Callable[[Source], NDArray[np.uint8]],
    times: StageTimes = NO_TIMES,
) -> Generator[list[Outcome]]:
    """Predict batch by batch; one list of outcomes per batch, both in the order given.

    Two batches and four pictures are decoded and prepared ahead, no more, so memory does not grow with the folder
    (where the predictor has lanes, so many batches and one more are in them or just out of them).
    A picture that cannot be read becomes an outcome with an error, and its batch is predicted without it.

    Args:
        predictor: the model.
        batches: pictures that are padded together; taken as they are needed.
        read: decodes one picture to uint8 (H, W, 3) RGB; called from several threads.
        times: takes the seconds of the stages.

    Raises:
        PredictionError: the model failed on a batch, out of memory for example.
    """
    to_load, to_predict = itertools.tee(batches)
    pictures = map_ahead(
        _Loader(predictor, read, times),
        itertools.chain.from_iterable(to_load),
        ahead=2 * predictor.batch_size + _EXTRA,
        ready=partial(times.queue, MODEL),
    )
    with closing(pictures) as loaded:
        prepared = _gather(to_predict, loaded, times)
        predict = partial(_predict, predictor, times=times)
        lanes = predictor.lanes if isinstance(predictor, HasLanes) else 1
        if lanes == 1:
            yield from map(predict, prepared)
        else:
            with closing(map_ahead(predict, prepared, ahead=lanes, threads=lanes)) as found:
                yield from found


def _gather(
    batches: Iterable[Sequence[Source]], loaded: Iterator[_Loaded], times: StageTimes
) -> Iterator[list[_Loaded]]:
    """The loaded pictures batch by batch."""
    for batch in batches:
        with times.stage(NO_PICTURES):
            pictures = list(itertools.islice(loaded, len(batch)))
        yield pictures


class _Loader:
    """Decodes and prepares one picture; called from several threads."""

    def __init__(
        self,
        predictor: PicturePredictor,
        read: Callable[[Source], NDArray[np.uint8]],
        times: StageTimes,
    ) -> None:
        self._predictor, self._read, self._times = predictor, read, times
        self._large = threading.Lock()

    def __call__(self, source: Source) -> _Loaded:
        try:
            with self._times.stage(DECODE):
                image = self._read(source)
            with self._turn(image), self._times.stage(PREPARE):
                prepared = self._predictor.prepare(image)
        except Exception as error:
            return _Loaded(source, error=reason(error, source.path))
        return _Loaded(source, prepared, (image.shape[0], image.shape[1]))

    def _turn(self, image: NDArray[np.uint8]) -> AbstractContextManager[object]:
        """Large pictures one after another: as float32 each takes 12 bytes a pixel, several times over."""
        return self._large if image.shape[0] * image.shape[1] > LARGE else nullcontext()


def _predict(
    predictor: PicturePredictor, batch: Sequence[_Loaded], *, times: StageTimes
) -> list[Outcome]:
    good = [picture for picture in batch if picture.error is None]
    with times.stage(MODEL) if good else nullcontext():
        found = iter(_found(predictor, good) if good else ())
    return [
        Outcome(p.source, next(found) if p.error is None else None, p.error, p.size) for p in batch
    ]


def _found(predictor: PicturePredictor, batch: Sequence[_Loaded]) -> list[Instances]:
    try:
        return predictor.predict([picture.prepared for picture in batch])
    except (RuntimeError, MemoryError) as error:
        # never one by one instead: other padding gives other results, and a resume would not repeat them
        names = ", ".join(picture.source.key for picture in batch[:_NAMED])
        more = f" and {len(batch) - _NAMED} more" if len(batch) > _NAMED else ""
        raise PredictionError(
            f"the model failed on {names}{more} ({_first_line(error)}); where memory ran out, "
            "a smaller --batch-size or --max-size and another --output help"
        ) from error


def map_ahead(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    ahead: int,
    threads: int = THREADS,
    ready: Callable[[int], object] | None = None,
) -> Generator[Result]:
    """`function` of each item, in order, worked out in threads for at most `ahead` items in advance.

    Args:
        function: called from several threads.
        items: taken in the caller's thread.
        ahead: the bound of the queue of results, begun and finished.
        threads: how many.
        ready: told how many results are finished whenever one is taken.
    """

    def take() -> Result:
        if ready is not None:
            ready(sum(future.done() for future in waiting))
        return waiting.popleft().result()

    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > ahead:
                    yield take()
            while waiting:
                yield take()
        finally:
            for future in waiting:
                future.cancel()


def reason(error: Exception, path: Path) -> str:
    """Why a picture could not be used, in one line and without its path, which stands beside it."""
    if isinstance(error, SegcliError):
        return str(error).removeprefix(f"{path}: ")
    if isinstance(error, OSError):
        return error.strerror or _first_line(error)
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    return f"{type(error).__name__}: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
