"""Clocks, and races in which the contestants take turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch

State = Literal["call", "cold", "warm"]
Prepare = Callable[[], Any]
Run = Callable[[Any], Any]

_FEWEST, _MOST = 5, 100
_SPIN_CYCLES = 2_000_000  # about 1 ms on an H200: longer than Python needs to queue what is timed


class Clock(Protocol):
    """Times one call.

    Attributes:
        states: that it knows; in the first, the caches hold nothing of use.
        budget_ms: of a race in which no number of rounds was asked for.
    """

    states: tuple[State, ...]
    budget_ms: float

    def time(self, prepare: Prepare, run: Run, state: State) -> float:
        """Milliseconds of `run(prepare())`, without `prepare`."""


class CpuClock:
    """Wall clock around a call. Caches are as the contestant before left them."""

    states: tuple[State, ...] = ("call",)
    budget_ms = 6000.0

    def time(self, prepare: Prepare, run: Run, state: State) -> float:
        """See `Clock`."""
        del state
        prepared = prepare()
        start = time.perf_counter_ns()
        result = run(prepared)
        end = time.perf_counter_ns()
        del result
        return (end - start) / 1e6


class CudaClock:
    """Three ways to look at a call on a GPU.

    `call`: wall clock from an idle GPU until it is idle again, so with all that Python costs. `cold` and `warm`:
    between two events, queued while the GPU is kept busy, so without what Python costs, unless the call itself waits
    for the GPU. Before `cold` a buffer larger than the L2 cache is written, before `warm` the same call runs untimed.
    """

    states: tuple[State, ...] = ("cold", "warm", "call")
    budget_ms = 1500.0

    def __init__(self, device: torch.device) -> None:
        cache = torch.cuda.get_device_properties(device).L2_cache_size
        self._device = device
        self._flush = torch.empty(max(4 * cache, 1 << 28), dtype=torch.uint8, device=device)

    def time(self, prepare: Prepare, run: Run, state: State) -> float:
        """See `Clock`."""
        with torch.cuda.device(self._device):
            return (
                self._wall(prepare, run) if state == "call" else self._events(prepare, run, state)
            )

    def _wall(self, prepare: Prepare, run: Run) -> float:
        prepared = prepare()
        torch.cuda.synchronize()
        start = time.perf_counter_ns()
        result = run(prepared)
        torch.cuda.synchronize()
        end = time.perf_counter_ns()
        del result
        return (end - start) / 1e6

    def _events(self, prepare: Prepare, run: Run, state: State) -> float:
        prepared = prepare()
        first = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        last = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        if state == "cold":
            self._flush.zero_()
        else:
            run(prepare())  # of its own: a graph serves once
        torch.cuda._sleep(_SPIN_CYCLES)  # type: ignore[no-untyped-call]
        first.record()
        result = run(prepared)
        last.record()
        torch.cuda.synchronize()
        del result
        return float(first.elapsed_time(last))


@dataclass(frozen=True)
class Spread:
    """Milliseconds over the rounds of a race."""

    median: float
    p10: float
    p90: float
    rounds: int


def spread(times: Sequence[float]) -> Spread:
    """Median and the tenth and ninetieth percentile (linear between neighbours)."""
    if len(times) == 1:
        return Spread(times[0], times[0], times[0], 1)
    deciles = statistics.quantiles(times, n=10, method="inclusive")
    return Spread(statistics.median(times), deciles[0], deciles[8], len(times))


def paired_ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Median over the rounds of slow / fast, so that what slows a whole round down falls out."""
    return statistics.median(s / max(f, 1e-9) for s, f in zip(slow, fast, strict=True))


def race(
    steps: dict[str, tuple[Prepare, Run]], clock: Clock, state: State, rounds: int | None
) -> dict[str, list[float]]:
    """Time all in turn, round after round; each round begins with another one.

    Args:
        steps: by name, what comes before the clock starts and what is timed.
        clock: of the device.
        state: see the clock.
        rounds: None = as many as fit into the clock's budget, from 5 to 100. A warm-up round comes before.

    Returns:
        Milliseconds by name, one per round.
    """
    names = list(steps)
    start = time.perf_counter()
    for name in names:
        clock.time(*steps[name], state)
    warm_up = (time.perf_counter() - start) * 1e3  # with what lies between the times
    if rounds is None:
        rounds = int(min(max(clock.budget_ms / max(warm_up, 1e-3), _FEWEST), _MOST))
    times: dict[str, list[float]] = {name: [] for name in names}
    for i in range(rounds):
        turn = i % len(names) if names else 0
        for name in names[turn:] + names[:turn]:
            times[name].append(clock.time(*steps[name], state))
    return times
