"""Out of memory in a step: which pictures, how many objects, and what to change; likewise in validation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from segcli.data.batch import Batch
from segcli.errors import PredictionError, TrainingError
from segcli.prediction.reasons import first_line

# how torch's CPU allocator says so (c10/core/impl/alloc_cpu.cpp), and glibc through numpy
_CPU_SIGNS = ("not enough memory", "can't allocate memory", "Cannot allocate memory")
REMEDY = (
    "go on with --resume and --max-instances N or --checkpointing, or start anew with a smaller --batch-size "
    "(and --accumulate N for the same step) or --max-size"
)


@contextmanager
def memory_errors_named(batch: Batch, step: int) -> Iterator[None]:
    """Turn a failed allocation into one line that a user can act on.

    Args:
        batch: that is worked on.
        step: counted from 1.

    Raises:
        TrainingError: in place of torch's own error; others pass.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"step {step}: out of memory on {describe(batch)}; the last checkpoint is kept: {REMEDY}"
        ) from error


@contextmanager
def validation_memory_named() -> Iterator[None]:
    """The same around a validation, which no setting of the steps makes smaller.

    Raises:
        TrainingError: in place of the error that says so; others pass.
    """
    try:
        yield
    except (PredictionError, MemoryError, RuntimeError) as error:
        cause = error.__cause__ if isinstance(error, PredictionError) else error
        if cause is None or not is_out_of_memory(cause):
            raise
        raise TrainingError(
            f"validation: out of memory ({first_line(cause)}); all steps are saved: go on with "
            "--resume --eval-batch-size 1, or where that is not enough with more memory free"
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on whichever device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _CPU_SIGNS)


def describe(batch: Batch) -> str:
    """`a.jpg (120 objects), b.jpg (3 objects), batch 2 × 800 × 1088`."""
    pictures = ", ".join(
        f"{name} ({len(target['boxes'])} objects)"
        for name, target in zip(batch.file_names, batch.targets, strict=True)
    )
    count, _, height, width = batch.images.shape
    return f"{pictures}, batch {count} × {height} × {width}"
