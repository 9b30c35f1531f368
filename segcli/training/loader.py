"""Reading pictures ahead through all epochs, in worker processes that share the annotations' memory."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Generator, Iterator
from typing import Any

from torch.utils.data import DataLoader

from segcli.data.batch import Batch, make_batch
from segcli.data.order import EndlessBatches, EpochBatches
from segcli.data.training_set import TrainingSet
from segcli.errors import TrainingError
from segcli.processes import leave_signals_to_main, signals_deferred
from segcli.training.memory import is_out_of_memory

_AHEAD = 2  # batches per worker


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
        TrainingError: a worker died, or there is not enough memory to read a picture.
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
        if is_out_of_memory(error):
            raise TrainingError(
                f"out of memory while pictures were read ahead; {workers} --workers, each with up to {_AHEAD} "
                "batches: give fewer --workers, or a smaller --batch-size or --max-size"
            ) from error
        if "DataLoader worker" not in str(error):
            raise
        raise TrainingError(
            f"a process that reads pictures died ({' '.join(str(error).split())}); where memory is short give "
            "fewer --workers; the last checkpoint is kept, run again with --resume"
        ) from error
    return batch


def _start_worker(_number: int) -> None:
    gc.freeze()  # a collection writes to every object it looks at, and the system copies their pages
    leave_signals_to_main()
