"""Pictures through a predictor: decoded ahead in threads, predicted in the caller's thread, in order.

    plan → decode, prepare (threads) → [bounded queue] → model (caller's thread) → [bounded queue] → rows, shards

The second half is `segcli.prediction.writer`.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from segcli.categories import Categories
from segcli.errors import PredictionError
from segcli.instances import Instances
from segcli.prediction.ahead import map_ahead
from segcli.prediction.loads import Loaded, Loader, ReadsTogether
from segcli.prediction.overlapping import Overlaps, in_turn
from segcli.prediction.profile import MODEL, NO_PICTURES, NO_TIMES, StageTimes
from segcli.prediction.reasons import first_line

_EXTRA = 4  # pictures decoded ahead beyond two batches
_NAMED = 3  # files named in a message


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


@runtime_checkable
class SumsUp(Protocol):
    """A part of a job that has something to say at its end."""

    def summary(self) -> str | None:
        """One line, if any."""


def run_batches(
    predictor: PicturePredictor,
    batches: Iterable[Sequence[Source]],
    *,
    read: Callable[[Source], NDArray[np.uint8]],
    weigh: Callable[[Source], int] | None = None,
    times: StageTimes = NO_TIMES,
) -> Generator[list[Outcome]]:
    """Predict batch by batch; one list of outcomes per batch, both in the order given.

    Two batches and four pictures are decoded and prepared ahead, no more, and of large ones fewer, so memory does not
    grow with the folder (where the predictor has lanes or overlaps, so many batches and one more are in it or just out
    of it). A picture that cannot be read becomes an outcome with an error, and its batch is predicted without it.

    Args:
        predictor: the model.
        batches: pictures that are padded together; taken as they are needed.
        read: decodes one picture to uint8 (H, W, 3) RGB; called from several threads. One that also
            `ReadsTogether` is given whole batches.
        weigh: bytes that a picture takes ahead; None = not worth counting.
        times: takes the seconds of the stages.

    Raises:
        PredictionError: the model failed on a batch, out of memory for example.
    """
    with closing(_prepared(predictor, batches, read, weigh, times)) as prepared:
        if isinstance(predictor, Overlaps):
            yield from _overlapping(predictor, prepared, times=times)
            return
        predict = partial(_predict, predictor, times=times)
        lanes = predictor.lanes if isinstance(predictor, HasLanes) else 1
        if lanes == 1:
            yield from map(predict, prepared)
        else:
            with closing(map_ahead(predict, prepared, ahead=lanes, threads=lanes)) as found:
                yield from found


def _prepared(
    predictor: PicturePredictor,
    batches: Iterable[Sequence[Source]],
    read: Callable[[Source], NDArray[np.uint8]],
    weigh: Callable[[Source], int] | None,
    times: StageTimes,
) -> Generator[list[Loaded]]:
    """The loaded pictures batch by batch."""
    reader: object = read  # else mypy takes it for a function, which is nothing else
    loader, queue = Loader(predictor, read, times), partial(times.queue, MODEL)
    if isinstance(reader, ReadsTogether):
        together = partial(loader.batch, reader)
        heavy = None if weigh is None else partial(_weight, weigh)
        with closing(map_ahead(together, batches, ahead=2, ready=queue, weigh=heavy)) as found:
            yield from _waited_for(found, times)
        return
    to_load, to_predict = itertools.tee(batches)
    pictures = map_ahead(
        loader,
        itertools.chain.from_iterable(to_load),
        ahead=2 * predictor.batch_size + _EXTRA,
        ready=queue,
        weigh=weigh,
    )
    with closing(pictures) as loaded:
        yield from _gather(to_predict, loaded, times)


def _weight(weigh: Callable[[Source], int], batch: Sequence[Source]) -> int:
    return sum(map(weigh, batch))


def _waited_for(batches: Iterator[list[Loaded]], times: StageTimes) -> Iterator[list[Loaded]]:
    while True:
        with times.stage(NO_PICTURES, calls=0):
            batch = next(batches, None)
        if batch is None:
            return
        times.add(NO_PICTURES, calls=1, wall=0.0, cpu=0.0)
        yield batch


def _gather(
    batches: Iterable[Sequence[Source]], loaded: Iterator[Loaded], times: StageTimes
) -> Iterator[list[Loaded]]:
    """The loaded pictures batch by batch."""
    for batch in batches:
        with times.stage(NO_PICTURES):
            pictures = list(itertools.islice(loaded, len(batch)))
        yield pictures


def _predict(
    predictor: PicturePredictor, batch: Sequence[Loaded], *, times: StageTimes
) -> list[Outcome]:
    good = _good(batch)
    if not good:
        return _outcomes(batch, [])
    with times.stage(MODEL), _named([batch]):
        found = predictor.predict(good)
    return _outcomes(batch, found)


def _overlapping(
    predictor: Overlaps, prepared: Iterable[list[Loaded]], *, times: StageTimes
) -> Iterator[list[Outcome]]:
    """The same with some batches under way at a time; one that fails may be any of these."""
    waiting: deque[list[Loaded]] = deque()

    def pictures() -> Iterator[list[Any]]:
        for batch in prepared:
            waiting.append(batch)
            yield _good(batch)

    @contextmanager
    def around(finished: int) -> Iterator[None]:
        with times.stage(MODEL, finished), _named(waiting):
            yield

    with closing(in_turn(predictor, pictures(), around=around)) as results:
        for found in results:
            yield _outcomes(waiting.popleft(), found)


def _good(batch: Sequence[Loaded]) -> list[Any]:
    return [picture.prepared for picture in batch if picture.error is None]


def _outcomes(batch: Sequence[Loaded], instances: Sequence[Instances]) -> list[Outcome]:
    found = iter(instances)
    return [
        Outcome(p.source, next(found) if p.error is None else None, p.error, p.size) for p in batch
    ]


@contextmanager
def _named(batches: Iterable[Sequence[Loaded]]) -> Iterator[None]:
    """Names the pictures, where the model fails in the block."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        # never one by one instead: other padding gives other results, and a resume would not repeat them
        keys = [p.source.key for batch in batches for p in batch if p.error is None]
        more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
        raise PredictionError(
            f"the model failed on {', '.join(keys[:_NAMED])}{more} ({first_line(error)}); where memory ran out, "
            "a smaller --batch-size or --max-size and another --output help"
        ) from error
