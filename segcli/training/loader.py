"""Reading an epoch's pictures ahead, in worker processes that share the annotations' memory."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader

from segcli.console import warn
from segcli.data.order import EpochBatches
from segcli.data.training_set import Batch, TrainingSet, make_batch

_HELD = (signal.SIGINT, signal.SIGTERM)


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
    with _signals_held():
        batches = iter(loader)
    for batch in batches:
        for picture in batch.unreadable:
            if picture.file_name not in named:
                named.add(picture.file_name)
                warn(f"left out of training: {picture.reason}")
        yield batch


@contextmanager
def _signals_held() -> Iterator[None]:
    """Signals wait while workers are started, which would else take them with this process's handlers."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(_number: int) -> None:
    """Ctrl-C is the main process's to handle; SIGTERM ends a worker at once, without a word and without blame."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # another code would count as a crash
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)
