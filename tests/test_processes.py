"""Workers that hang, parents that die, signals at the wrong moment."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from segcli.processes import signals_deferred

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and looks into /proc")


_SIGNALLED = """
import os, signal, threading, time
from segcli.processes import signals_deferred
number = signal.Signals({number})
arrived = []
signal.signal(number, lambda n, _frame: arrived.append(n))
def until(count):  # the thread that gets a signal may have to wait for its turn
    deadline = time.monotonic() + 30
    while len(arrived) < count and time.monotonic() < deadline:
        time.sleep(0.005)
    return arrived == [number] * count
with signals_deferred():
    sender = threading.Thread(target=lambda: os.kill(os.getpid(), number))
    sender.start()
    sender.join()
    time.sleep(0.2)
    assert until(0)
assert until(1)
os.kill(os.getpid(), number)
assert until(2)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_until_the_workers_are_started(number: signal.Signals) -> None:
    """Also one that another thread receives; the handler that was there before gets it, once.

    In a process of its own: a signal that comes after the test's end would end whoever runs the tests.
    """
    script = _SIGNALLED.format(number=int(number))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_other_threads_have_no_handlers_to_defer() -> None:
    """Python takes handlers in the main thread only."""
    entered = []

    def enter() -> None:
        with signals_deferred():
            entered.append(True)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert entered == [True]


_HANGING = """
import multiprocessing, signal, sys, time
from segcli.processes import end_workers, leave_signals_to_main
def hang(ready):
    leave_signals_to_main()
    ready.set()
    time.sleep(600)
context = multiprocessing.get_context("fork")
ready = context.Event()
worker = context.Process(target=hang, args=(ready,), daemon=True)
worker.start()
ready.wait()
worker.terminate()  # in vain
print(worker.pid, flush=True)
{then}
"""


def test_a_hanging_worker_does_not_keep_the_program_from_ending() -> None:
    """It is ended by force."""
    script = _HANGING.format(then="end_workers(0.1)")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert _ends(int(done.stdout))


def test_a_worker_dies_with_its_killed_parent() -> None:
    """`kill -9` of the main process leaves none behind."""
    command = [sys.executable, "-c", _HANGING.format(then="time.sleep(600)")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        assert not _gone(worker)
        parent.kill()
    assert _ends(worker)


def _ends(pid: int) -> bool:
    """Whether the process is gone within ten seconds."""
    deadline = time.monotonic() + 10
    while not _gone(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return _gone(pid)


def _gone(pid: int) -> bool:
    """Whether no such process runs; one that nobody waited for counts as gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


_LOST = """
import sys
from segcli.processes import leave_signals_to_main
leave_signals_to_main()
raise {error}
"""


@pytest.mark.parametrize(("error", "said"), [("EOFError", False), ("ValueError('x')", True)])
def test_only_a_lost_connection_is_not_worth_a_word(error: str, said: bool) -> None:
    """Anything else that a worker's thread trips over is shown."""
    done = subprocess.run([sys.executable, "-c", _LOST.format(error=error)], capture_output=True)
    assert done.returncode == 1
    assert (b"Traceback" in done.stderr) == said
