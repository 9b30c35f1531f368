"""One contestant of `segcli bench predict` in a process of its own: a line of JSON in, a line of JSON out.

| in | out |
|---|---|
| `{"do": "open", "contestant", "task"}` | `{"pictures", "seconds"}`, or `{"error", "usage"}` |
| `{"do": "job", "out"}` | `{"seconds", "stages", "peak_bytes", "gpu_peak_bytes", "resolved"}`, or the same |
| `{"do": "count"}` (stock only) | `{"trunk_gflop"}` |

The end of the input ends the process. Whatever else is printed goes to stderr. Standard library only, until the first
message says who this is: the allocator is set up before torch is there.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from segcli.allocator import keep_large_blocks
from segcli.bench.answering import Message, answer, gpu_peak_bytes, peak_bytes
from segcli.bench.predictors import STOCK, Task

if TYPE_CHECKING:
    from segcli.bench.ours import OurJob
    from segcli.bench.stock import StockJob


def main() -> None:
    """Answer messages until there are no more."""
    contestant = Contestant()
    answer({"open": contestant.open, "job": contestant.job, "count": contestant.count})


class Contestant:
    """Who this process is, from `open` on."""

    _job: OurJob | StockJob

    def open(self, message: Message) -> Message:
        """Load the model."""
        name, task = message["contestant"], Task(**message["task"])
        start = time.perf_counter()
        if name != STOCK:  # the program does so at its start; a script does not
            keep_large_blocks()
        self._job = _load(name, task)
        return {"pictures": self._job.pictures, "seconds": time.perf_counter() - start}

    def job(self, message: Message) -> Message:
        """Do the whole job once; only this is inside the time."""
        out = Path(message["out"])
        start = time.perf_counter()
        stages = self._job.run(out)
        seconds = time.perf_counter() - start
        known = sum(stages.get(name, 0.0) for name in self._job.serial)
        stages["rest"] = max(seconds - known, 0.0)
        return {
            "seconds": seconds,
            "stages": stages,
            "peak_bytes": peak_bytes(),
            "gpu_peak_bytes": gpu_peak_bytes(),
            "resolved": self._job.resolved,
        }

    def count(self, _message: Message) -> Message:
        """Operations of the trunk per picture of the last job."""
        from segcli.bench.stock import StockJob

        assert isinstance(self._job, StockJob)
        return {"trunk_gflop": self._job.trunk_gflop()}


def _load(name: str, task: Task) -> OurJob | StockJob:
    import torch

    from segcli.prediction.walk import find_pictures

    if task.threads is not None:
        torch.set_num_threads(task.threads)
    inputs = find_pictures(Path(task.pictures))
    inputs = replace(inputs, pictures=inputs.pictures[: task.limit])
    if name == STOCK:  # neither loads what only the other needs
        from segcli.bench.stock import StockJob

        return StockJob(task, inputs)
    from segcli.bench.ours import OurJob

    return OurJob(name, task, inputs)


if __name__ == "__main__":
    main()
