"""Ctrl-C and SIGTERM become requests, and are obeyed."""

from __future__ import annotations

import signal

import pytest

from segcli.errors import Terminated
from segcli.training.stopping import StopRequest

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="POSIX signals")


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)]
)
def test_a_signal_is_a_request_first(number: signal.Signals, error: type[BaseException]) -> None:
    """Nothing is raised until the run obeys; afterwards signals do what they did before."""
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with StopRequest().heeded() as stop:
        stop.obey()
        signal.raise_signal(number)
        assert stop.number == number
        with pytest.raises(error):
            stop.obey()
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize(
    ("torchrun", "then"),
    [
        pytest.param(False, signal.SIG_DFL, id="ends the process by the system's hand"),
        pytest.param(True, signal.SIG_IGN, id="under torchrun it is the same one again"),
    ],
)
def test_a_second_signal(
    torchrun: bool, then: signal.Handlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of either kind."""
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    if torchrun:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    with StopRequest().heeded():
        signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) == then
        assert signal.getsignal(signal.SIGINT) == then


def test_work_that_may_be_lost_is_ended_at_once() -> None:
    """An evaluation comes again at the next start; one that was asked for before does not begin."""
    with StopRequest().heeded() as stop:
        with pytest.raises(Terminated), stop.at_once():
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Terminated), stop.at_once():
            raise AssertionError("begun although a stop was asked for")
