"""Predictors that work on a batch while the caller prepares the next one: those that run on another device."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, runtime_checkable

from segcli.instances import Instances


@runtime_checkable
class Overlaps(Protocol):
    """A predictor whose `predict` may be taken apart: `submit` begins a batch, `collect` waits for the oldest one."""

    @property
    def full(self) -> bool:
        """Whether `collect` has to come before the next `submit`."""

    @property
    def under_way(self) -> int:
        """Batches submitted and not collected."""

    def submit(self, pictures: Sequence[Any]) -> None:
        """Begin a batch of prepared pictures; it may be empty."""

    def collect(self) -> list[Instances]:
        """The objects of each picture of the oldest batch under way."""

    def discard(self) -> None:
        """Forget all batches under way."""


def in_turn(
    predictor: Overlaps,
    batches: Iterable[Sequence[Any]],
    *,
    around: Callable[[int], AbstractContextManager[object]] = nullcontext,
) -> Generator[list[Instances]]:
    """Results batch by batch, in order; as many batches as the predictor takes are under way meanwhile.

    Args:
        predictor: at rest; left so, however this ends.
        batches: prepared pictures; taken while others are under way.
        around: a context for each `submit` and `collect`, told how many batches the call finishes, 0 or 1.
    """

    def collect() -> list[Instances]:
        with around(1):
            return predictor.collect()

    try:
        for batch in batches:
            while predictor.full:
                yield collect()
            with around(0):
                predictor.submit(batch)
        while predictor.under_way:
            yield collect()
    finally:
        predictor.discard()
