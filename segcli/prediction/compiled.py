"""The trunk compiled by Inductor ahead of time, once for all sizes of pictures, and kept for later runs.

With the weights frozen into it, Inductor joins what stands between convolutions into single passes over memory. The
package is a file under SEGCLI_HOME that loads in a fraction of a second.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim

from segcli.console import say, warn
from segcli.errors import UsageError
from segcli.files import drop_abandoned, sha256, turn, write_bytes
from segcli.home import cache_folder
from segcli.models.inference import Trunk, TrunkEngine, TrunkOutput

_COMPILERS = ("c++", "g++", "clang++")
_EXAMPLE = (
    2,
    3,
    800,
    1088,
)  # layouts of weights are chosen for it; other sizes run with them as well
_GRID = 32  # every side is a multiple of it
_KEPT = 8  # newest packages; R50's is 190 MB


def why_not() -> str | None:
    """Why nothing can be compiled here; None where it can."""
    given = os.environ.get("CXX")
    if any(shutil.which(name) for name in ((given,) if given else _COMPILERS)):
        return None
    return f"no C++ compiler was found (looked for {given or ', '.join(_COMPILERS)})"


def compiled_trunk(module: Trunk, weights: str) -> TrunkEngine:
    """The compiled form of a trunk: from the cache, or made now, which takes a minute.

    Args:
        module: plain (not packed), on the CPU, in the type that it shall compute in.
        weights: SHA-256 of the weights it was made from; part of the cache's key.

    Raises:
        UsageError: nothing can be compiled here.
    """
    path = cache_folder("compiled") / f"{_key(module, weights)}.pt2"
    engine = _load(path)
    if engine is not None:
        return engine
    with turn(path.with_suffix(".lock"), "waiting for another segcli process that compiles this"):
        engine = _load(path)  # it may have been this trunk
        if engine is None:
            _make(module, path)
            engine = _load(path)
    if engine is None:
        raise UsageError(
            f"--compile: what was compiled cannot be loaded from {path}; use --no-compile"
        )
    return engine


def keep_compiled() -> None:
    """Let Inductor keep its files under SEGCLI_HOME, unless the user has chosen a place for them.

    Raises:
        OutputError: the folder is another user's, or cannot be made.
    """
    if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache_folder("inductor"))


def _make(module: Trunk, path: Path) -> None:
    reason = why_not()
    if reason:
        raise UsageError(f"--compile: {reason}; install one, set CXX, or use --no-compile")
    say("compiling the trunk; it is kept for later runs")
    keep_compiled()
    drop_abandoned(path.parent.glob("tmp*"))
    _compile(module, path)
    for old in sorted(path.parent.glob("*.pt2"), key=lambda file: file.stat().st_mtime)[:-_KEPT]:
        old.unlink()
        old.with_suffix(".sha256").unlink(missing_ok=True)


def _key(module: Trunk, weights: str) -> str:
    """A name for all that the compiled code depends on."""
    parts = {
        "weights": weights,
        "dtype": str(module.dtype),
        "torch": torch.__version__,
        "processor": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "outputs": TrunkOutput._fields,
        "format": 1,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _load(path: Path) -> TrunkEngine | None:
    """The engine in a file, or None where there is none that is whole."""
    note = path.with_suffix(".sha256")
    if not path.is_file():
        return None
    if not note.is_file() or note.read_text() != sha256(path):
        warn(f"{path}: damaged, compiling anew")
        return None
    package: Any = torch._inductor.aoti_load_package(str(path))

    def run(images: Tensor) -> TrunkOutput:
        return Trunk.grouped(package(images))

    return run


def _compile(module: Trunk, path: Path) -> None:
    example = torch.zeros(_EXAMPLE).contiguous(memory_format=torch.channels_last)
    sizes = {
        0: Dim("pictures", min=1, max=1024),
        2: _GRID * Dim("rows", min=1, max=1024),
        3: _GRID * Dim("columns", min=1, max=1024),
    }
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, torch.no_grad(), _frozen():
        program = torch.export.export(module, (example,), dynamic_shapes={"images": sizes})
        made = Path(folder) / "trunk.pt2"
        torch._inductor.aoti_compile_and_package(program, package_path=str(made))
        write_bytes(path.with_suffix(".sha256"), sha256(made).encode())
        made.replace(path)


@contextmanager
def _frozen() -> Iterator[None]:
    """Inductor with the weights as constants, so that it may change their layout."""
    from torch._inductor import config

    with config.patch(freezing=True):
        yield
