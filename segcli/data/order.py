"""In which order training sees pictures: a seeded shuffle per epoch, the same for any number of workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from segcli.data.training_set import Ticket

_BATCHES_PER_GROUP = 8


class EpochBatches(Sampler[list[Ticket]]):
    """Batches of one epoch, of pictures of like shape, since a batch is padded to its largest.

    Pictures are shuffled, sorted by shape within groups of eight batches, cut into batches, and the batches are
    shuffled. The last, smaller batch is filled up with pictures from the start of the shuffle.

    Args:
        shapes: height / width of each picture.
        batch_size: pictures per step.
        seed: of the shuffle.
        epoch: counts from 0.
    """

    def __init__(self, shapes: Sequence[float], batch_size: int, *, seed: int, epoch: int) -> None:
        self.shapes = np.asarray(shapes, np.float64)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.shapes) // self.batch_size)

    def __iter__(self) -> Iterator[list[Ticket]]:
        rng = np.random.Generator(np.random.PCG64([self.seed, self.epoch]))
        order = rng.permutation(len(self.shapes))
        order = np.resize(order, len(self) * self.batch_size)
        group = _BATCHES_PER_GROUP * self.batch_size
        for start in range(0, len(order), group):
            part = order[start : start + group]
            order[start : start + group] = part[np.argsort(self.shapes[part], kind="stable")]
        batches = order.reshape(len(self), self.batch_size)[rng.permutation(len(self))]
        for batch, indices in enumerate(batches):
            yield [Ticket(self.epoch, int(index), batch) for index in indices]
