"""Worker processes and signals: none is left behind, none keeps the program from ending."""

from __future__ import annotations

import ctypes
import multiprocessing
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

_STOPPING = (signal.SIGINT, signal.SIGTERM)
_HAS_MASK = hasattr(signal, "pthread_sigmask")  # not on Windows
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@contextmanager
def signals_deferred() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait while workers are started: half-started ones would be nobody's to end.

    By a handler, since a mask holds for one thread and leaves the signal to any other; and by a mask, which the
    workers inherit until `leave_signals_to_main`.
    """
    if threading.current_thread() is not threading.main_thread():  # no handler ever runs there
        yield
        return
    arrived: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        arrived.append(number)

    before = {number: signal.signal(number, note) for number in _STOPPING}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING) if _HAS_MASK else set()
    try:
        yield
    finally:
        if _HAS_MASK:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for first in arrived[:1]:
            signal.raise_signal(first)


def leave_signals_to_main() -> None:
    """In a worker: Ctrl-C and SIGTERM are the main process's to handle; a worker ends when told to, or with it."""
    for number in _STOPPING:
        signal.signal(number, signal.SIG_IGN)
    if _HAS_MASK:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
    if sys.platform.startswith("linux"):  # also after `kill -9`, and at once
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    sys.excepthook = _quiet_about_main


def _quiet_about_main(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """A batch that nobody takes, because the main process was interrupted, is no error to report."""
    if not isinstance(error, EOFError | ConnectionError):
        sys.__excepthook__(kind, error, trace)


def end_workers(patience: float = 2.0) -> None:
    """End every worker process that is left, by force where it does not end by itself.

    At its exit Python waits for them without limit: one that hangs (on a lock that was taken while it was forked)
    would keep the program from ending.

    Args:
        patience: seconds that each may take.
    """
    for worker in multiprocessing.active_children():
        worker.join(patience)
        if worker.is_alive():
            worker.kill()
