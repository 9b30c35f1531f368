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

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from segcli.bench.predictors import STOCK, Task
from segcli.errors import SegcliError, UsageError

if TYPE_CHECKING:
    from segcli.bench.ours import OurJob
    from segcli.bench.stock import StockJob

Message = dict[str, Any]


def main() -> None:
    """Answer messages until there are no more."""
    stdout = own_stdout()
    contestant = Contestant()
    for line in sys.stdin:
        message = json.loads(line)
        functions: dict[str, Callable[[Message], Message]] = {
            "open": contestant.open,
            "job": contestant.job,
            "count": contestant.count,
        }
        try:
            reply = functions[message["do"]](message)
        except SegcliError as error:
            reply = {"error": str(error), "usage": isinstance(error, UsageError)}
        print(json.dumps(reply), file=stdout, flush=True)


class Contestant:
    """Who this process is, from `open` on."""

    _job: OurJob | StockJob

    def open(self, message: Message) -> Message:
        """Load the model."""
        name, task = message["contestant"], Task(**message["task"])
        start = time.perf_counter()
        if name != STOCK:  # the program does so at its start; a script does not
            from segcli.allocator import keep_large_blocks

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
            "gpu_peak_bytes": _gpu_peak_bytes(),
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


def peak_bytes() -> int | None:
    """The most memory that this process ever held; None where the system does not say.

    Not `ru_maxrss`, where it can be helped: on Linux that begins with the size of the process that started this one.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return _ru_maxrss()
    lines = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(lines[0].split()[1]) * 1024 if lines else _ru_maxrss()


def _ru_maxrss() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found if sys.platform == "darwin" else found * 1024


def _gpu_peak_bytes() -> int | None:
    import torch

    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None


def own_stdout() -> IO[str]:
    """The stream that replies go to; file descriptor 1, and so everybody else's stdout, becomes stderr."""
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return stream


if __name__ == "__main__":
    main()
