"""Seconds by stage, from many threads, and the table they make."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from segcli.prediction.profile import (
    NO_TIMES,
    HasStages,
    StageTime,
    StageTimes,
    Totals,
    available_cores,
    profile_rows,
    profiled,
)

TOTALS = Totals(pictures=4, wall=2.0, cpu=3.0, cores=2)


class Staged:
    """A predictor that measures stages of its own."""

    def __init__(self) -> None:
        self.stages = NO_TIMES


def test_nothing_measured() -> None:
    """No stage ran: only what the process spent besides is left, and an empty run divides by nothing."""
    assert StageTimes().sums() == {}
    nothing = Totals(pictures=0, wall=0.0, cpu=0.0, cores=1)
    assert profile_rows({}, {}, nothing) == [
        ["other threads (torch's)", "–", "–", "0.00", "–", "–", "–", "–"]
    ]
    assert profile_rows({"model": StageTime()}, {}, nothing)[0][1:6] == [
        "0", "0.00", "0.00", "0%", "0.00",
    ]  # fmt: skip
    assert nothing.line().startswith("wall 0.00 s, CPU seconds of all stages 0.00 s, ÷ 1 cores")


def test_threads_add_up() -> None:
    """No call is lost, however many threads report; wall seconds are summed, CPU seconds are the thread's own."""
    times = StageTimes()

    def work(_: int) -> None:
        for _ in range(500):
            with times.stage("decode", calls=2):
                pass
            times.queue("decode", 3)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    found = times.sums()["decode"]
    assert (found.calls, found.taken, found.waiting, found.longest) == (8000, 4000, 12000, 3)


def test_waiting_is_wall_and_not_cpu() -> None:
    """A stage that sleeps takes wall seconds, and hardly any of the processor's."""
    times = StageTimes()
    with times.stage("model"):
        time.sleep(0.05)
    assert times.sums()["model"].wall >= 0.05
    assert times.sums()["model"].cpu < times.sums()["model"].wall


def test_an_error_ends_a_stage() -> None:
    """Its time counts, and the error goes on."""
    times = StageTimes()
    with pytest.raises(ValueError, match="broken"), times.stage("decode"):
        raise ValueError("broken")
    assert times.sums()["decode"].calls == 1


def test_no_times() -> None:
    """What stands in while nobody asks takes all calls, nested ones too, and keeps nothing."""
    with NO_TIMES.stage("a"), NO_TIMES.stage("a", calls=3), NO_TIMES.stage("b"):
        NO_TIMES.queue("a", 1)
    NO_TIMES.add("a", calls=1, wall=1.0, cpu=1.0)
    assert NO_TIMES.sums() == {}
    assert NO_TIMES.stage("a") is NO_TIMES.stage("b")


def test_rows() -> None:
    """Stages in the pipeline's order, the model's own indented below it, the rest of the CPU seconds at the end."""
    stages = {
        "write": StageTime(1, 0.1, 0.1),
        "model waits for pictures": StageTime(4, 0.5, 0.0),
        "encode": StageTime(4, 0.2, 0.2, taken=2, waiting=3, longest=2),
        "model": StageTime(2, 1.0, 0.75, taken=4, waiting=6, longest=4),
        "decode": StageTime(4, 3.0, 1.0),
    }
    rows = profile_rows(stages, {"network": StageTime(2, 0.8, 0.5)}, TOTALS)
    assert rows == [
        ["decode", "4", "3.00", "1.00", "150%", "750.00", "–", "–"],
        ["model", "2", "1.00", "0.75", "50%", "250.00", "1.5", "4"],
        ["  network", "2", "0.80", "0.50", "40%", "200.00", "–", "–"],
        ["encode", "4", "0.20", "0.20", "10%", "50.00", "1.5", "2"],
        ["write", "1", "0.10", "0.10", "5%", "25.00", "–", "–"],
        ["model waits for pictures", "4", "0.50", "0.00", "25%", "125.00", "–", "–"],
        ["other threads (torch's)", "–", "–", "0.95", "–", "–", "–", "–"],
    ]


def test_the_line() -> None:
    """Wall, CPU seconds, what the cores need at least, and how far the job is from that."""
    assert TOTALS.line() == (
        "wall 2.00 s, CPU seconds of all stages 3.00 s, ÷ 2 cores 1.50 s (wall is 1.33 × that)"
    )
    assert available_cores() >= 1


def test_profiled(capsys: pytest.CaptureFixture[str]) -> None:
    """The predictor reports during the block only; table and line come on stderr, at the end."""
    predictor = Staged()
    assert isinstance(predictor, HasStages)
    with profiled(predictor, 3) as times:
        with times.stage("model"), predictor.stages.stage("masks"):
            pass
        assert capsys.readouterr() == ("", "")
    assert predictor.stages is NO_TIMES
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Profile of 3 pictures")
    assert err.index("│ model ") < err.index("│   masks ") < err.index("other threads")
    assert err.splitlines()[-1].startswith("wall ")


def test_profiled_without_stages_and_with_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """A predictor without stages does as well; after an error there is no table, and nothing stays switched on."""
    predictor = Staged()
    with pytest.raises(KeyboardInterrupt), profiled(predictor, 1):
        raise KeyboardInterrupt
    assert predictor.stages is NO_TIMES
    assert capsys.readouterr().err == ""
    with profiled(object(), 0):
        pass
    assert "Profile of 0 pictures" in capsys.readouterr().err


def test_a_reader_may_look_while_others_report() -> None:
    """`sums` is a copy: adding goes on beside it."""
    times, stop = StageTimes(), threading.Event()

    def report() -> None:
        while not stop.is_set():
            with times.stage("decode"):
                pass

    thread = threading.Thread(target=report)
    thread.start()
    try:
        seen = [times.sums().get("decode", StageTime()).calls for _ in range(200)]
    finally:
        stop.set()
        thread.join()
    assert seen == sorted(seen)
