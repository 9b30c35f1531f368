"""In which order training sees pictures: a seeded shuffle per epoch, the same for any number of workers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from segcli.data.training_set import Ticket


class EpochBatches(Sampler[list[Ticket]]):
    """Batches of one epoch; the last, smaller one is filled up with pictures from the start of the shuffle.

    Args:
        pictures: how many there are.
        batch_size: pictures per step.
        seed: of the shuffle.
        epoch: counts from 0.
    """

    def __init__(self, pictures: int, batch_size: int, *, seed: int, epoch: int) -> None:
        self.pictures = pictures
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.pictures // self.batch_size)

    def __iter__(self) -> Iterator[list[Ticket]]:
        rng = np.random.Generator(np.random.PCG64([self.seed, self.epoch]))
        order = rng.permutation(self.pictures)
        order = np.resize(order, len(self) * self.batch_size)
        for batch, indices in enumerate(order.reshape(len(self), self.batch_size)):
            yield [Ticket(self.epoch, int(index), batch) for index in indices]
