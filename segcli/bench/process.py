"""The other end of `child`: contestants as processes that take messages one at a time."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from segcli.errors import PredictionError, UsageError

COMMAND = (sys.executable, "-m", "segcli.bench.child")
_PATIENCE_S = 10.0


class Process:
    """A contestant in a process of its own; used as a context, after which the process is gone.

    Attributes:
        name: of the contestant, for messages.
    """

    def __init__(
        self, name: str, *, threads: int | None = None, command: Sequence[str] | None = None
    ) -> None:
        self.name = name
        environment = dict(os.environ)
        if threads is not None:
            environment["OMP_NUM_THREADS"] = str(threads)
        # a file, because nobody empties a pipe while the contestant works
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the process is
        self._process = subprocess.Popen(
            command or COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=environment,
            text=True,
            encoding="utf-8",
        )

    def ask(self, do: str, **message: Any) -> dict[str, Any]:
        """Send a message and wait for the answer.

        Raises:
            UsageError: the contestant cannot do this here.
            PredictionError: it failed, or its process died.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **message}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise PredictionError(self._obituary())
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            kind = UsageError if reply["usage"] else PredictionError
            raise kind(reply["error"] if reply["usage"] else f"{self.name}: {reply['error']}")
        return reply

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """End the process: politely, unless it is in the middle of something that nobody waits for any more."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if error is not None:
            self._process.kill()
        with contextlib.suppress(BrokenPipeError):  # it is gone already
            self._process.stdin.close()
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._stderr.close()

    def _obituary(self) -> str:
        """What is known about a process that died, in one line."""
        code = self._process.wait()
        how = f"ended with exit code {code}" if code >= 0 else f"was killed by signal {-code}"
        self._stderr.seek(0)
        said = self._stderr.read().decode("utf-8", "replace").strip().splitlines()
        return f"{self.name}: its process {how} ({said[-1].strip() if said else 'it said nothing'})"
