"""One contestant of `segcli bench train` in a process of its own: a line of JSON in, a line of JSON out.

| in | out |
|---|---|
| `{"do": "open", "contestant", "task"}` | `{"seconds", "resolved"}`, or `{"error", "usage"}` |
| `{"do": "losses"}` | `{"losses"}`: of the first batch, with the samples that all contestants draw |
| `{"do": "step"}` | `{"stages", "peak_bytes", "step_bytes", "gpu_peak_bytes"}`: one training step |

The end of the input ends the process. Whatever else is printed goes to stderr.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import time
from typing import TYPE_CHECKING

from segcli.allocator import keep_large_blocks
from segcli.bench.answering import Message, answer, gpu_peak_bytes, peak_bytes, resident_bytes
from segcli.bench.trainers import STOCK, TrainTask

if TYPE_CHECKING:
    from segcli.bench.train_ours import OurTraining
    from segcli.bench.train_stock import StockTraining


def main() -> None:
    """Answer messages until there are no more."""
    contestant = Contestant()
    answer({"open": contestant.open, "losses": contestant.losses, "step": contestant.step})


class Contestant:
    """Who this process is, from `open` on."""

    _job: OurTraining | StockTraining
    _resting: int | None

    def open(self, message: Message) -> Message:
        """Load the network and find the pictures."""
        name, task = message["contestant"], TrainTask(**message["task"])
        start = time.perf_counter()
        if name != STOCK:  # the program does so at its start; a script does not
            keep_large_blocks()
        self._job = _load(name, task)
        _give_back_unused()
        self._resting = resident_bytes()
        return {"seconds": time.perf_counter() - start, "resolved": self._job.resolved}

    def losses(self, _message: Message) -> Message:
        """Of the first batch."""
        return {"losses": self._job.losses()}

    def step(self, _message: Message) -> Message:
        """Train on the next batch."""
        stages = self._job.step()
        peak = peak_bytes()
        known = peak is not None and self._resting is not None
        return {
            "stages": stages,
            "peak_bytes": peak,
            "step_bytes": (peak or 0) - (self._resting or 0) if known else None,
            "gpu_peak_bytes": gpu_peak_bytes(),
        }


def _load(name: str, task: TrainTask) -> OurTraining | StockTraining:
    import torch

    from segcli.bench.train_inputs import read_inputs

    if task.threads is not None:
        torch.set_num_threads(task.threads)
    torch.manual_seed(0)
    inputs = read_inputs(task)
    if name == STOCK:
        from segcli.bench.train_stock import StockTraining

        job: OurTraining | StockTraining = StockTraining(task, inputs)
    else:
        from segcli.bench.train_ours import OurTraining

        job = OurTraining(task, inputs, name)
    inputs.state.clear()  # loaded; a second copy of the weights is nobody's need
    return job


def _give_back_unused() -> None:
    """Return what loading left free in the heap, which the first step would otherwise use unseen."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


if __name__ == "__main__":
    main()
