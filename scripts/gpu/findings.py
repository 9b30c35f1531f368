"""What a step found: checks that passed or failed, and figures."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch

T = TypeVar("T")

NEEDS_CUDA = "needs CUDA"


class Findings:
    """Filled by a step, and written to a file with every entry, lest a step that dies takes all.

    Attributes:
        path: of the file.
        rehearsal: sizes are tiny, the device is the CPU, and nothing is measured.
        device: `cuda` or `cpu`.
        checks: `passed`, `failed: why` or `needs CUDA` by what was checked.
        figures: what was measured, by name; stays empty in a rehearsal.
    """

    def __init__(self, path: Path, *, rehearsal: bool) -> None:
        self.path = path
        self.rehearsal = rehearsal
        self.device = "cpu" if rehearsal else "cuda"
        self.checks: dict[str, str] = {}
        self.figures: dict[str, Any] = {}

    @property
    def ok(self) -> bool:
        """No check failed."""
        return not any(result.startswith("failed") for result in self.checks.values())

    @contextmanager
    def check(self, name: str) -> Iterator[None]:
        """A block that fails by raising; the traceback goes to the log and the step goes on."""
        try:
            yield
            self.checks[name] = "passed"
        except Exception as error:
            traceback.print_exc()
            first = str(error).strip().splitlines() or [""]
            self.checks[name] = f"failed: {type(error).__name__}: {first[0][:300]}"
        print(f"{name}: {self.checks[name]}", flush=True)
        self._write()

    def cuda_check(self, name: str, body: Callable[[], None]) -> None:
        """A check that makes sense on a GPU only; in a rehearsal it is named and not run."""
        if self.rehearsal:
            self.checks[name] = NEEDS_CUDA
            self._write()
            return
        with self.check(name):
            body()

    def figure(self, name: str, value: object) -> None:
        """Note a measurement; a rehearsal measures nothing."""
        if not self.rehearsal:
            self.figures[name] = value
            print(f"{name}: {value}", flush=True)
            self._write()

    def pick(self, real: T, tiny: T) -> T:
        """A size: for the GPU, or for the interpreter."""
        return tiny if self.rehearsal else real

    def _write(self) -> None:
        found = {"ok": self.ok, "checks": self.checks, "figures": self.figures}
        half = self.path.with_suffix(".half")
        half.write_text(json.dumps(found, indent=1) + "\n")
        half.replace(self.path)


def expect(condition: bool, message: str) -> None:
    """Raise with a message unless the condition holds; `assert` says nothing outside pytest."""
    if not condition:
        raise AssertionError(message)


def median_ms(call: Callable[[], object], *, repeats: int = 50, cold: bool = True) -> float:
    """Median GPU time of a call in milliseconds; cold = the L2 cache is overwritten before each.

    The host runs ahead of the GPU while it overwrites the cache, so launches cost nothing unless there are very many.
    """
    flush = torch.empty(256 * 2**20, dtype=torch.int8, device="cuda") if cold else None
    for _ in range(3):
        call()
    events = []
    for _ in range(repeats):
        if flush is not None:
            flush.zero_()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        events.append((start, end))
    torch.cuda.synchronize()
    times = sorted(start.elapsed_time(end) for start, end in events)
    return round(times[len(times) // 2], 5)
