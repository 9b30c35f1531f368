"""Ctrl-C and SIGTERM become requests, and are obeyed. In processes of their own, since these have other handlers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="POSIX signals")

_HEAD = """
import signal
from segcli.errors import Terminated
from segcli.training.stopping import StopRequest
def raises(error, do):
    try:
        do()
    except error:
        return True
    return False
signal.signal(signal.SIGINT, signal.default_int_handler)
"""


def _run(script: str, **environment: str) -> None:
    given = {k: v for k, v in os.environ.items() if k != "TORCHELASTIC_RUN_ID"}
    done = subprocess.run(
        [sys.executable, "-c", _HEAD + script], capture_output=True, text=True, check=False,
        env=given | environment, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "done\n"


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, "KeyboardInterrupt"), (signal.SIGTERM, "Terminated")]
)
def test_a_signal_is_a_request_first(number: signal.Signals, error: str) -> None:
    """Nothing is raised until the run obeys; afterwards signals do what they did before."""
    _run(f"""
before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
with StopRequest().heeded() as stop:
    stop.obey()
    signal.raise_signal({int(number)})
    assert stop.number == {int(number)}
    assert raises({error}, stop.obey)
assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
print("done")
""")


@pytest.mark.parametrize(
    ("torchrun", "then"),
    [
        pytest.param({}, "SIG_DFL", id="ends the process by the system's hand"),
        pytest.param(
            {"TORCHELASTIC_RUN_ID": "1"}, "SIG_IGN", id="under torchrun it is the same one again"
        ),
    ],
)
def test_a_second_signal(torchrun: dict[str, str], then: str) -> None:
    """Of either kind."""
    script = f"""
with StopRequest().heeded():
    signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == signal.{then}
    assert signal.getsignal(signal.SIGINT) == signal.{then}
print("done")
"""
    _run(script, **torchrun)


def test_work_that_may_be_lost_is_ended_at_once() -> None:
    """An evaluation comes again at the next start; one that was asked for before does not begin."""
    _run("""
begun = []
def evaluate():
    with stop.at_once():
        begun.append(True)
        signal.raise_signal(signal.SIGTERM)
with StopRequest().heeded() as stop:
    assert raises(Terminated, evaluate)
    assert raises(Terminated, evaluate)
assert begun == [True]
print("done")
""")
