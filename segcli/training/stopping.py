"""Ctrl-C and SIGTERM: the step is finished, a checkpoint saved, and only then the run ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from segcli.console import say
from segcli.errors import Terminated
from segcli.training.world import under_torchrun

_STOPPING = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Whether somebody asked the run to end, and by which signal.

    Outside of `heeded` signals do what they did before. A second signal ends the process at once, by the system's
    own hand: Python's handlers run only between two of its instructions, and a step on a CPU takes seconds. Under
    torchrun, which passes on what the terminal already sent to all, a second one means nothing.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._at_once = False

    @contextmanager
    def heeded(self) -> Iterator[StopRequest]:
        """Take signals as requests while the block runs."""
        if threading.current_thread() is not threading.main_thread():  # no handler ever runs there
            yield self
            return
        before = {number: signal.signal(number, self._note) for number in _STOPPING}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """For work that is lost without harm (an evaluation): the first signal already ends it."""
        self.obey()
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def obey(self) -> None:
        """End where it was asked for.

        Raises:
            KeyboardInterrupt: after Ctrl-C.
            Terminated: after SIGTERM.
        """
        if self.number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.number is not None:
            raise Terminated

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.number is not None:
            return
        self.number = number
        then: Callable[..., None] | signal.Handlers
        then = signal.SIG_IGN if under_torchrun() else signal.SIG_DFL
        for each in _STOPPING:
            signal.signal(each, then)
        if self._at_once:
            self.obey()
        more = "" if under_torchrun() else " (a second signal ends at once)"
        say(f"ending after this step; a checkpoint is saved first{more}")
