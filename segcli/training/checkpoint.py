"""`last.ckpt`: all that is needed to go on after any step, with its own hash; `previous.ckpt`: the one before."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from segcli.console import warn
from segcli.errors import ModelError, OutputError
from segcli.files import atomic_writer
from segcli.training.progress import Progress
from segcli.training.state import TrainState
from segcli.zoo import LoadedModel

SCHEMA = 2
LAST = "last.ckpt"
PREVIOUS = "previous.ckpt"
# the first line of a file; what follows is `torch.save`'s
_HEAD = re.compile(rb"segcli checkpoint (\d+) sha256 ([0-9a-f]{64})\n")
_HEAD_LIMIT = 120  # bytes


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a checkpoint file holds.

    Attributes:
        record: `spec`, `categories`, `info`, `source` of the model, `progress`, `metrics_bytes`.
        tensors: `model`, `optimizer`, and `average` where there is one.
    """

    record: dict[str, Any]
    tensors: dict[str, Any]

    @property
    def progress(self) -> Progress:
        """Where the run stood."""
        return Progress(**self.record["progress"])

    @property
    def metrics_bytes(self) -> int:
        """How long `metrics.jsonl` was; what follows tells of steps that were lost."""
        return int(self.record["metrics_bytes"])


def save_last(folder: Path, model: LoadedModel, state: TrainState, *, metrics_bytes: int) -> None:
    """Write `last.ckpt` beside, and only when it is whole give it its name; the one before becomes `previous.ckpt`.

    Raises:
        OutputError: it cannot be written (no space left, say); the checkpoints that are there stay as they are.
    """
    record = {
        "spec": model.spec.to_dict(),
        "categories": model.categories.to_coco(),
        "progress": asdict(state.progress),
        "info": model.info,
        "source": model.source,
        "metrics_bytes": metrics_bytes,
    }
    buffer = io.BytesIO()
    torch.save({"record": json.dumps(record), **state.tensors()}, buffer)
    content = buffer.getbuffer()
    head = f"segcli checkpoint {SCHEMA} sha256 {hashlib.sha256(content).hexdigest()}\n"
    last = folder / LAST
    try:
        with atomic_writer(last) as stream:
            stream.write(head.encode())
            stream.write(content)
            stream.flush()
            os.fsync(
                stream.fileno()
            )  # whole on the disk before the one that is there loses its name
            if last.exists():
                last.replace(folder / PREVIOUS)
    except OSError as error:
        there = last.exists() or (folder / PREVIOUS).exists()
        kept = "the checkpoint before it is whole" if there else "there is none before it"
        raise OutputError(
            f"{last}: cannot be written ({error.strerror}); {kept}: make room, then run again with --resume"
        ) from error


def load_last(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole; None where there is none.

    A damaged `last.ckpt` is named in a warning, and `previous.ckpt` takes its name.

    Raises:
        ModelError: all that are there are damaged, or of another version.
    """
    last, previous = folder / LAST, folder / PREVIOUS
    if not last.exists() and not previous.exists():
        return None
    try:
        return _read(last)
    except ModelError as error:
        if not previous.exists():
            raise
        try:
            found = _read(previous)
        except ModelError:
            raise error from None
        if last.exists():
            warn(f"{error}")
        warn(f"{previous}: used in its place, from step {found.progress.step}")
        previous.replace(last)
        return found


def _read(path: Path) -> Checkpoint:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
    head = _HEAD.match(content[:_HEAD_LIMIT])
    if head is None:
        raise _damaged(path, "its first line is not that of a checkpoint")
    if int(head[1]) != SCHEMA:
        raise ModelError(f"{path}: schema {int(head[1])}, this version reads {SCHEMA}")
    payload = memoryview(content)[head.end() :]
    if hashlib.sha256(payload).hexdigest().encode() != head[2]:
        raise _damaged(path, f"{len(content)} bytes, of which the SHA-256 is not the stored one")
    try:
        tensors = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        return Checkpoint(json.loads(tensors.pop("record")), tensors)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise _damaged(path, reason) from error


def _damaged(path: Path, reason: str) -> ModelError:
    return ModelError(f"{path}: damaged checkpoint ({reason}); start anew with --overwrite")
