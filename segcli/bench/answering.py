"""What contestants in processes of their own share: the exchange of messages, and how much memory they hold.

Standard library only: the allocator is set up before torch is there.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from segcli.errors import SegcliError, UsageError

Message = dict[str, Any]


def answer(functions: Mapping[str, Callable[[Message], Message]]) -> None:
    """Answer messages, a line of JSON each, until there are no more; an error is an answer too.

    Args:
        functions: by what a message's `do` says.
    """
    stdout = own_stdout()
    for line in sys.stdin:
        message = json.loads(line)
        try:
            reply = functions[message["do"]](message)
        except SegcliError as error:
            reply = {"error": str(error), "usage": isinstance(error, UsageError)}
        print(json.dumps(reply), file=stdout, flush=True)


def own_stdout() -> IO[str]:
    """The stream that replies go to; file descriptor 1, and so everybody else's stdout, becomes stderr."""
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return stream


def peak_bytes() -> int | None:
    """The most memory that this process ever held; None where the system does not say.

    Not `ru_maxrss`, where it can be helped: on Linux that begins with the size of the process that started this one.
    """
    found = _status_bytes("VmHWM")
    return _ru_maxrss() if found is None else found


def resident_bytes() -> int | None:
    """What this process holds now; None where the system does not say."""
    return _status_bytes("VmRSS")


def _status_bytes(field: str) -> int | None:
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return None
    lines = [line for line in status.splitlines() if line.startswith(f"{field}:")]
    return int(lines[0].split()[1]) * 1024 if lines else None


def _ru_maxrss() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found if sys.platform == "darwin" else found * 1024


def gpu_peak_bytes() -> int | None:
    """The most that torch held on the GPU; None without one."""
    import torch

    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
