"""Reading pictures ahead through all epochs, in worker processes that share the annotations' memory."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.data import DataLoader

from segcli.data.batch import Batch, make_batch
from segcli.data.order import EndlessBatches, EpochBatches
from segcli.data.training_set import TrainingSet
from segcli.errors import PredictionError, TrainingError
from segcli.processes import leave_signals_to_main, signals_deferred
from segcli.training.memory import is_out_of_memory

_AHEAD = 2  # batches per worker
_DEATH = "DataLoader worker (pid"  # torch; an error in a worker that lives reads "in DataLoader worker process"


def read_ahead(
    pictures: TrainingSet,
    order: EpochBatches,
    workers: int,
    *,
    pinned: bool = False,
    told: Callable[[Batch], None],
) -> Generator[Batch, None, None]:
    """Batches from the beginning of `order` on, epoch after epoch, without an end.

    Workers live as long as the run, and read the first pictures of an epoch while the one before is evaluated.

    Args:
        pictures: the training set.
        order: where to begin.
        workers: processes; 0 = read in this one.
        pinned: put batches where a GPU copies from while the host goes on.
        told: of every batch before it is given out, to name what was left out of it.

    Raises:
        TrainingError: there is not enough memory to read a picture.
        RuntimeError: a worker died, see `deaths_named`.
    """
    fork = workers > 0 and sys.platform.startswith("linux")
    loader: DataLoader[Any] = DataLoader(
        pictures,
        batch_sampler=EndlessBatches(order),
        num_workers=workers,
        collate_fn=make_batch(pictures.preprocess.pad_multiple),
        worker_init_fn=_start_worker,
        multiprocessing_context="fork" if fork else None,
        prefetch_factor=_AHEAD if workers else None,
        pin_memory=pinned,
    )
    with signals_deferred():
        batches = iter(loader)
    while True:
        batch = _next(batches, workers)
        told(batch)
        yield batch


def _next(batches: Iterator[Any], workers: int) -> Batch:
    try:
        batch: Batch = next(batches)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"out of memory while pictures were read ahead; {workers} --workers, each with up to {_AHEAD} "
            "batches: give fewer --workers, or a smaller --batch-size or --max-size"
        ) from error
    return batch


@contextmanager
def deaths_named() -> Iterator[None]:
    """Say in one line that a process that reads pictures died (the system's out-of-memory killer ends such ones).

    torch raises it from its handler of SIGCHLD, wherever the main thread is: in a step, an evaluation, a checkpoint.

    Raises:
        TrainingError: in place of torch's own error; others pass.
    """
    try:
        yield
    except (RuntimeError, PredictionError) as error:
        death = _death(error)
        if death is None:
            raise
        raise TrainingError(
            f"a process that reads pictures died ({death}); the last checkpoint is kept: go on with --resume and "
            "fewer --workers (0 = read in this process); in a container with little shared memory, give it more "
            "(docker: --shm-size)"
        ) from error


def _death(error: BaseException) -> str | None:
    """What torch says of a dead worker; also where prediction took it for an error of the model."""
    for each in (error, error.__cause__):
        if isinstance(each, RuntimeError) and _DEATH in str(each):
            return " ".join(str(each).split())
    return None


def _start_worker(_number: int) -> None:
    gc.freeze()  # a collection writes to every object it looks at, and the system copies their pages
    leave_signals_to_main()
