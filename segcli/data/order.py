"""In which order training sees pictures: a seeded shuffle per epoch, the same for any number of workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from segcli.data.training_set import Ticket

_BATCHES_PER_GROUP = 8
_PICKS = 3  # stream of random numbers: which pictures an epoch repeats


@dataclass(frozen=True)
class Share:
    """Which pictures of each step this process takes: rank `rank` of `world` processes."""

    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise ValueError(f"rank {self.rank} of {self.world} processes")


class EpochBatches(Sampler[list[Ticket]]):
    """Batches of one epoch, of pictures of like shape, since a batch is padded to its largest.

    Pictures are shuffled, sorted by shape within groups of eight batches, cut into batches, and the batches are
    shuffled. The last, smaller batch is filled up with pictures from the start of the shuffle.

    With several processes a step's pictures are those of one process with batches as large as all theirs together, and
    every process takes its share of each: all have the same number of batches.

    Args:
        shapes: height / width of each picture.
        batch_size: pictures per step of this process.
        seed: of the shuffle.
        epoch: counts from 0.
        start: batches to leave out, to go on in the middle of an epoch.
        share: of each step that this process takes.
        repeats: float64 (P,), how often an epoch shows each picture on average, see `segcli.data.repeats`; None = once.
    """

    def __init__(
        self,
        shapes: Sequence[float] | NDArray[np.float64],
        batch_size: int,
        *,
        seed: int,
        epoch: int,
        start: int = 0,
        share: Share | None = None,
        repeats: NDArray[np.float64] | None = None,
    ) -> None:
        self.shapes = np.asarray(shapes, np.float64)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = epoch
        self.start = start
        self.share = share or Share()
        self.repeats = repeats

    @property
    def whole(self) -> int:
        """Batches of the whole epoch, those before `start` included; the same in every epoch."""
        shown = len(self.shapes) if self.repeats is None else round(float(self.repeats.sum()))
        return -(-shown // (self.batch_size * self.share.world))

    def at(self, epoch: int, start: int = 0) -> EpochBatches:
        """The same order in another epoch, from another batch on."""
        return EpochBatches(
            self.shapes, self.batch_size, seed=self.seed, epoch=epoch, start=start,
            share=self.share, repeats=self.repeats,
        )  # fmt: skip

    def __len__(self) -> int:
        return max(self.whole - self.start, 0)

    def __iter__(self) -> Iterator[list[Ticket]]:
        batches = self._batches()
        # within a step, so that a partner is usually decoded already; the next step's where a step has one picture
        partners = np.roll(batches, -1, axis=1 if batches.shape[1] > 1 else 0)
        repeats = _times_before(batches)
        first = self.share.rank * self.batch_size
        own = slice(first, first + self.batch_size)
        for number in range(self.start, len(batches)):
            rows = (table[number, own].tolist() for table in (batches, partners, repeats))
            yield [
                Ticket(self.epoch, index, number, partner, repeat)
                for index, partner, repeat in zip(*rows, strict=True)
            ]

    def _batches(self) -> NDArray[np.int64]:
        """int64 (steps, pictures of a step): the epoch of all processes."""
        rng = np.random.Generator(np.random.PCG64([self.seed, self.epoch]))
        order = rng.permutation(len(self.shapes)) if self.repeats is None else self._repeated(rng)
        width = self.batch_size * self.share.world
        order = np.resize(order, self.whole * width)
        group = _BATCHES_PER_GROUP * width
        for start in range(0, len(order), group):
            part = order[start : start + group]
            order[start : start + group] = part[np.argsort(self.shapes[part], kind="stable")]
        batches: NDArray[np.int64] = order.reshape(-1, width)[rng.permutation(self.whole)]
        return batches

    def _repeated(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Every picture floor(r) or ceil(r) times, r on average, shuffled; equally many pictures in every epoch."""
        assert self.repeats is not None
        total = round(float(self.repeats.sum()))
        shuffled = rng.permutation(len(self.repeats))
        ends = np.cumsum(self.repeats[shuffled]) * (total / float(self.repeats.sum()))
        ends[-1] = total  # cumsum rounds
        marks = (
            np.arange(total) + rng.random()
        )  # one mark per picture shown, equally far from each other
        rows = np.searchsorted(ends, marks, side="right")
        return rng.permutation(shuffled[np.minimum(rows, len(ends) - 1)])


def _times_before(batches: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often each entry came up before, row after row."""
    flat = batches.reshape(-1)
    places = np.argsort(flat, kind="stable")
    first = np.searchsorted(flat[places], flat[places])  # where the run of equal entries begins
    counts = np.empty_like(flat)
    counts[places] = np.arange(len(flat)) - first
    return counts.reshape(batches.shape)


class EndlessBatches(Sampler[list[Ticket]]):
    """Epoch after epoch without end, so that a loader and its workers live as long as the run.

    Args:
        order: the first epoch; its `start` holds for it alone.
    """

    def __init__(self, order: EpochBatches) -> None:
        self.order = order

    def __iter__(self) -> Iterator[list[Ticket]]:
        yield from self.order
        epoch = self.order.epoch
        while True:
            epoch += 1
            yield from self.order.at(epoch)
