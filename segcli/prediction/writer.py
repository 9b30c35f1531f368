"""Rows and shards, made in a thread of their own behind a bounded queue: the model does not wait for the disk."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType

from segcli.errors import Terminated
from segcli.prediction.pipeline import Outcome
from segcli.prediction.profile import ENCODE, NO_ROOM, NO_TIMES, WRITE, StageTimes
from segcli.prediction.recording import row_of
from segcli.prediction.shards import ShardWriter

AHEAD = (
    8  # finished batches that may wait: a few slow fsyncs, at some 100 kB of run lengths a picture
)

_TURN = 0.5  # seconds

Batch = Sequence[tuple[Outcome, int]]  # of each picture what became of it, and its planned batch


class RowWriter:
    """Writes outcomes to the shards of `out`, batch by batch in the order given; used as a context.

    On leaving the context, for whatever reason, the batches that were put are written and committed. An error in the
    thread is raised by the next `put`, at the latest on leaving; the batches after it are not written.

    The threads meet in SimpleQueues alone, which are written in C: an interrupt that strikes the main thread inside
    Python's own locks (`Queue`, `Event`) can leave them shut, and the job would hang instead of ending.
    """

    def __init__(self, out: Path, *, times: StageTimes = NO_TIMES, ahead: int = AHEAD) -> None:
        self._shards = ShardWriter(out)
        self._times = times
        self._waiting: SimpleQueue[Batch | None] = SimpleQueue()
        self._room: SimpleQueue[None] = SimpleQueue()  # an entry for each batch that may yet wait
        for _ in range(ahead):
            self._room.put(None)
        self._error: BaseException | None = None
        self._finished = False
        self._news: SimpleQueue[None] = SimpleQueue()  # has an entry when finished
        # a daemon: should an interrupt come between its start and the `with` block, the program still ends
        self._thread = threading.Thread(target=self._work, name="segcli-writer", daemon=True)

    def __enter__(self) -> RowWriter:
        self._thread.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        stop = self._end()
        if self._error is not None and self._error is not error:
            raise self._error
        if stop is not None and error is None:
            raise stop

    def put(self, batch: Batch) -> None:
        """Hand over one whole batch; waits while too many are unwritten.

        Raises:
            PredictionError: a number of an earlier batch is not finite.
            OutputError: an earlier shard cannot be written.
            OSError: likewise, the disk is full for example.
        """
        if self._error is not None:
            raise self._error
        with self._times.stage(NO_ROOM):
            self._room.get()
        self._waiting.put(batch)

    def _end(self) -> BaseException | None:
        """Wait until all is written; an interrupt meanwhile is returned, not obeyed.

        What is left is short, and OUT must stay locked while the thread may still write to it.
        """
        stop: BaseException | None = None
        while True:
            try:
                self._waiting.put(None)  # once more after an interrupt does no harm
                self._wait()
                self._thread.join()
                return stop
            except (KeyboardInterrupt, Terminated) as interrupt:
                stop = interrupt

    def _wait(self) -> None:
        # `join` alone does not do: interrupted, Python 3.11's takes a running thread for ended
        while not self._finished:
            with suppress(Empty):  # in turns, lest an interrupt lose the entry
                self._news.get(timeout=_TURN)

    def _work(self) -> None:
        """Write until the end is announced; after an error batches are taken and dropped, so that nobody waits."""
        while True:
            depth = self._waiting.qsize()
            batch = self._waiting.get()
            if batch is None:
                break
            self._room.put(None)
            self._times.queue(ENCODE, depth)
            if self._error is None:
                self._attempt(partial(self._write, batch))
        self._attempt(self._commit)
        self._finished = True
        self._news.put(None)

    def _attempt(self, step: Callable[[], None]) -> None:
        try:
            step()
        except BaseException as error:  # raised in the thread that puts
            self._error = self._error or error

    def _write(self, batch: Batch) -> None:
        with self._times.stage(ENCODE, calls=len(batch)):
            rows = [row_of(outcome, number) for outcome, number in batch]
        with self._times.stage(WRITE):
            self._shards.add(rows)

    def _commit(self) -> None:
        with self._times.stage(WRITE, calls=0):
            self._shards.commit()
