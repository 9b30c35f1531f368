"""Models of OpenVINO under SEGCLI_HOME: private, written atomically, and used only while their hash is right."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from segcli.console import warn
from segcli.files import atomic_writer, drop_abandoned
from segcli.home import cache_folder
from segcli.models.inference.units import ConvUnit
from segcli.prediction.openvino_runtime import core, runtime
from segcli.version import __version__

_SCHEMA = 1  # of what is converted and how it is arranged
_MARK = b"segcli openvino\n"
_KEPT = {
    "trunk": 8,
    "int8": 32,
    "race": 256,
}  # newest files of each kind; R50-FPN: 106 MB and 28 MB each


def path_for(kind: str, parts: Mapping[str, object]) -> Path:
    """Where the file of everything that is named in `parts` lies.

    Args:
        kind: `trunk`, `int8` or `race`.
        parts: plain values; our own version is added.
    """
    whole = {**parts, "segcli": __version__, "schema": _SCHEMA}
    name = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:32]
    return cache_folder("openvino") / f"{kind}-{name}.bin"


def read(path: Path) -> bytes | None:
    """The content of a file, or None where there is none or its hash is wrong; such a file is named and deleted."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    start = len(_MARK) + 32
    content = data[start:]
    if data[:start] != _MARK + hashlib.sha256(content).digest():
        warn(f"{path}: damaged (its hash is wrong), deleted; made anew")
        path.unlink(missing_ok=True)
        return None
    os.utime(path)  # the files longest unused go first
    return content


def write(path: Path, content: bytes) -> None:
    """Keep `content`, with its hash before it; beyond a number of files of its kind the oldest are deleted."""
    with atomic_writer(path) as stream:
        stream.write(_MARK + hashlib.sha256(content).digest())
        stream.write(content)
    kind = path.name.split("-")[0]
    files = sorted(path.parent.glob(f"{kind}-*.bin"), key=_age)
    for old in files[: -_KEPT[kind]]:
        old.unlink(missing_ok=True)


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # another process deleted it
        return 0.0


def fingerprint(module: nn.Module) -> str:
    """SHA-256 of a module's structure and weights; folded norms count, so that another epsilon is another module.

    Raises:
        ValueError: a unit is packed, its weights can no longer be read.
    """
    found = hashlib.sha256(str(module).encode())
    for name, child in module.named_modules():
        if isinstance(child, ConvUnit):
            if child.packed:
                raise ValueError(f"{name}: packed for oneDNN; expected a module in plain torch")
            kept = (child.stride, child.padding, child.dilation, child.groups, child.relu)
            found.update(f"{name} {kept}".encode())
    for name, tensor in module.state_dict().items():
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        found.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def packed(model: Any) -> bytes:
    """A model as one run of bytes: the length of its graph, the graph, its weights."""
    cache = cache_folder("openvino")
    drop_abandoned(cache.glob("tmp*"))
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        graph = Path(folder) / "model.xml"
        runtime().save_model(model, graph, compress_to_fp16=False)
        text, weights = graph.read_bytes(), graph.with_suffix(".bin").read_bytes()
    return len(text).to_bytes(8, "little") + text + weights


def unpacked(data: bytes) -> Any:
    """The model of `packed`."""
    end = 8 + int.from_bytes(data[:8], "little")
    return core().read_model(data[8:end], data[end:])
