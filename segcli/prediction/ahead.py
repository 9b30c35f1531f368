"""Work done ahead in threads, in order, with what lies about bounded in number and in bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

THREADS = 2
MOST_BYTES = 2**29  # of results begun or finished and not yet taken

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    ahead: int,
    threads: int = THREADS,
    ready: Callable[[int], object] | None = None,
    weigh: Callable[[Item], int] | None = None,
    most_bytes: int = MOST_BYTES,
) -> Generator[Result]:
    """`function` of each item, in order, worked out in threads for at most `ahead` items in advance.

    Args:
        function: called from several threads.
        items: taken in the caller's thread.
        ahead: the bound of the queue of results, begun and finished.
        threads: how many.
        ready: told how many results are finished whenever one is taken.
        weigh: bytes that an item's result takes, asked in the caller's thread; None = not worth counting.
        most_bytes: an item is not begun while it and those before it would take more, unless it is the only one.
    """

    def take() -> Result:
        if ready is not None:
            ready(sum(future.done() for future, _ in waiting))
        return waiting.popleft()[0].result()

    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[tuple[Future[Result], int]] = deque()
        try:
            for item in items:
                weight = 0 if weigh is None else weigh(item)
                while waiting and weight + sum(other for _, other in waiting) > most_bytes:
                    yield take()
                waiting.append((pool.submit(function, item), weight))
                if len(waiting) > ahead:
                    yield take()
            while waiting:
                yield take()
        finally:
            for future, _ in waiting:
                future.cancel()
