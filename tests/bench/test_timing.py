"""Clocks, races and their figures."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from segcli.bench import timing
from segcli.bench.timing import (
    CpuClock,
    CudaClock,
    Prepare,
    Run,
    Spread,
    State,
    paired_ratio,
    race,
    spread,
)


class Steps:
    """A clock that says what was written on its dial, and who was timed when."""

    states: tuple[State, ...] = ("call",)
    budget_ms = 6000.0

    def __init__(self) -> None:
        self.seen: list[str] = []

    def time(self, prepare: Prepare, run: Run, state: State) -> float:
        self.seen.append(run(prepare()))
        return 1.0


def entry(name: str) -> tuple[Prepare, Run]:
    """Something to time."""
    return lambda: name, lambda prepared: prepared


@pytest.mark.parametrize(
    ("times", "found"),
    [
        pytest.param([2.0], Spread(2, 2, 2, 1), id="one"),
        pytest.param([3.0, 1.0], Spread(2, 1.2, 2.8, 2), id="two"),
        pytest.param([float(t) for t in range(11)], Spread(5, 1, 9, 11), id="eleven"),
    ],
)
def test_spread(times: list[float], found: Spread) -> None:
    """Median and deciles, linear between neighbours."""
    got = spread(times)

    assert (got.median, got.p10, got.p90) == pytest.approx((found.median, found.p10, found.p90))
    assert got.rounds == found.rounds


def test_ratio_is_paired() -> None:
    """A round in which the machine was busy slows both down and leaves the ratio alone."""
    assert paired_ratio([10, 1000, 10], [1, 100, 1]) == pytest.approx(10)
    assert paired_ratio([10, 10, 10], [1, 2, 5]) == pytest.approx(5)


def test_race_of_nobody() -> None:
    """Nothing to time is no error."""
    assert race({}, Steps(), "call", 3) == {}


def test_race_takes_turns() -> None:
    """A warm-up round, then as many as asked for; each begins with the next one."""
    clock = Steps()
    times = race({name: entry(name) for name in "abc"}, clock, "call", 3)

    assert "".join(clock.seen) == "abc" + "abc" + "bca" + "cab"
    assert times == {name: [1.0] * 3 for name in "abc"}


@pytest.mark.parametrize(("each", "rounds"), [(0.0, 100), (0.1, 30), (10.0, 5)])
def test_rounds_fit_the_budget(each: float, rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a number, as many rounds as fit into the budget, from 5 to 100; what lies between the times counts."""
    watch = iter([0.0, 2 * each])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(watch))
    times = race({name: entry(name) for name in "ab"}, Steps(), "call", None)

    assert {len(t) for t in times.values()} == {rounds}


def test_cpu_clock_times_the_run_alone() -> None:
    """What comes before is not in the time, and its result reaches the run."""
    import time

    clock, seen = CpuClock(), []
    taken = clock.time(lambda: time.sleep(0.05) or "made", seen.append, "call")

    assert seen == ["made"]
    assert 0 <= taken < 50


class Gpu:
    """Stands in for torch.cuda: writes down what is queued, in order."""

    def __init__(self) -> None:
        self.queue: list[str] = []

    def Event(self, enable_timing: bool) -> Any:  # noqa: N802  # torch's name
        assert enable_timing
        gpu = self

        class Event:
            def record(self) -> None:
                gpu.queue.append("event")

            def elapsed_time(self, other: Any) -> float:
                return 1.5

        return Event()

    def _sleep(self, cycles: int) -> None:
        self.queue.append("spin")

    def synchronize(self) -> None:
        self.queue.append("wait")


@pytest.mark.parametrize(
    ("state", "queue"),
    [
        ("cold", "prepare flush spin event run event wait"),
        ("warm", "prepare prepare run spin event run event wait"),
        ("call", "prepare wait run wait"),
    ],
)
def test_cuda_clock(state: State, queue: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is timed lies alone between the events, with the cache flushed or filled before and the queue kept busy."""
    gpu = Gpu()
    for name in ("Event", "_sleep", "synchronize"):
        monkeypatch.setattr(torch.cuda, name, getattr(gpu, name))
    clock = CudaClock.__new__(CudaClock)
    monkeypatch.setattr(torch.cuda, "device", lambda _: torch.no_grad())
    clock._device = torch.device("cuda", 0)
    clock._flush = type("Buffer", (), {"zero_": lambda _: gpu.queue.append("flush")})()

    taken = clock.time(
        lambda: gpu.queue.append("prepare"), lambda _: gpu.queue.append("run"), state
    )

    assert " ".join(gpu.queue) == queue
    assert taken == 1.5 if state != "call" else taken >= 0


@pytest.mark.cuda
def test_cuda_clock_on_a_gpu() -> None:
    """On a real GPU all three states give a time."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    clock = CudaClock(torch.device("cuda", 0))
    data = torch.ones(1 << 24, device="cuda")

    for state in clock.states:
        assert clock.time(lambda: None, lambda _: data + 1, state) > 0
