"""Reading an epoch's pictures ahead, in worker processes that share the annotations' memory."""

from __future__ import annotations

import sys
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader

from segcli.console import warn
from segcli.data.order import EpochBatches
from segcli.data.training_set import Batch, TrainingSet, make_batch
from segcli.processes import leave_signals_to_main, signals_deferred


@dataclass(frozen=True, eq=False)
class EpochData:
    """What one epoch reads.

    Attributes:
        pictures: the training set.
        order: which pictures make which batch.
        pad_multiple: batches are padded to a multiple of this.
    """

    pictures: TrainingSet
    order: EpochBatches
    pad_multiple: int


def read_ahead(data: EpochData, workers: int, *, named: set[str]) -> Generator[Batch, None, None]:
    """The batches of one epoch, in order. Pictures that cannot be read are named, once each.

    Args:
        data: what to read.
        workers: processes; 0 = read in this one.
        named: pictures that a warning has named already; added to.
    """
    fork = workers > 0 and sys.platform.startswith("linux")
    loader: DataLoader[Any] = DataLoader(
        data.pictures,
        batch_sampler=data.order,
        num_workers=workers,
        collate_fn=make_batch(data.pad_multiple),
        worker_init_fn=_start_worker,
        multiprocessing_context="fork" if fork else None,
    )
    with signals_deferred():
        batches = iter(loader)
    for batch in batches:
        for picture in batch.unreadable:
            if picture.file_name not in named:
                named.add(picture.file_name)
                warn(f"left out of training: {picture.reason}")
        yield batch


def _start_worker(_number: int) -> None:
    leave_signals_to_main()
