"""Any file of weights, opened by what its first bytes say it is: never by its name, and never by running it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError, safe_open
from torch import Tensor

from segcli.models.checkpoints.arrays import ReadStorage, as_tensor
from segcli.models.checkpoints.names import without_prefix
from segcli.models.checkpoints.pickle_machine import PickleMachine
from segcli.models.checkpoints.pickle_values import Instance
from segcli.models.checkpoints.torch_files import LEGACY_MAGIC, read_legacy, read_zip

_WRAPPERS = ("state_dict", "model", "blobs", "model_state_dict")
_NOT_WEIGHTS = (
    "lr",
    "weight_order",
    "model_iter",
)  # numbers and lists that Detectron keeps beside its blobs
_OTHERS = {
    b"\x1f\x8b": "a gzip archive",
    b"<": "a web page, perhaps of a download that failed",
    b"version https://git-lfs": "a Git LFS pointer; fetch the file itself with `git lfs pull`",
    b"\x89HDF": "an HDF5 file",
    b"\x08": "an ONNX graph or another protocol buffer",
    b"{": "a JSON file",
}


@dataclass(frozen=True, eq=False)
class Container:
    """What a file holds, before it is known which family wrote it.

    Attributes:
        kind: `zip`, `legacy`, `pickle` or `safetensors`.
        wrapper: the key under which the weights lay; empty where they are all there is.
        state: names to tensors, as in the file.
        beside: everything beside the weights, as plain values; calls stay `Instance`.
    """

    kind: str
    wrapper: str
    state: dict[str, Tensor]
    beside: dict[str, Any] = field(default_factory=dict)


def read_container(path: Path) -> Container:
    """The tensors of a file.

    Raises:
        ValueError: not a file of weights, damaged, or one that would run code.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            head = stream.read(512)
            stream.seek(0)
            if size == 0:
                raise ValueError("is empty, expected weights")
            if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size:
                return _safetensors(path)
            return _pickled(stream, size, head)
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror or error})") from error


def _safetensors(path: Path) -> Container:
    try:
        with safe_open(path, framework="pt") as file:
            state = {n: file.get_tensor(n) for n in file.keys()}  # noqa: SIM118  # no mapping
            metadata = dict(file.metadata() or {})
    except SafetensorError as error:
        raise ValueError(f"no readable safetensors file ({error})") from error
    return Container("safetensors", "", without_prefix(state), metadata)


def _pickled(stream: BinaryIO, size: int, head: bytes) -> Container:
    read_storage: ReadStorage
    if head[:4] == b"PK\x03\x04":
        kind, (value, read_storage) = "zip", read_zip(stream, size)
    elif head[257:262] == b"ustar":
        raise ValueError("refused: a tar archive; PyTorch has written none since 2017")
    else:
        first = _first_pickle(stream, size, head)
        if first == LEGACY_MAGIC and not isinstance(first, bool):
            kind, (value, read_storage) = "legacy", read_legacy(stream, size)
        else:
            kind, value, read_storage = "pickle", first, _no_storage
    if isinstance(value, Instance):
        raise ValueError(f"refused: holds a {value.of}, expected a dict of weights")
    if not isinstance(value, dict):
        raise ValueError(f"holds a {type(value).__name__}, expected a dict of weights")
    wrapper = next((key for key in _WRAPPERS if isinstance(value.get(key), dict)), "")
    beside = {str(key): part for key, part in value.items() if key != wrapper} if wrapper else {}
    state = _tensors(value[wrapper] if wrapper else value, read_storage)
    return Container(kind, wrapper, without_prefix(state), beside)


def _first_pickle(stream: BinaryIO, size: int, head: bytes) -> Any:
    try:
        return PickleMachine(stream, size).load()
    except ValueError as error:
        what = next((what for start, what in _OTHERS.items() if head.startswith(start)), None)
        if what is None or str(error).startswith("refused"):
            raise
        raise ValueError(f"no weights: {what}") from error


def _no_storage(_reference: Any) -> Tensor:
    raise ValueError("damaged tensor (a plain pickle has no storages)")


def _tensors(values: dict[Any, Any], read_storage: ReadStorage) -> dict[str, Tensor]:
    """Every value as a tensor.

    Raises:
        ValueError: one is something else, or there is none.
    """
    state: dict[str, Tensor] = {}
    for name, value in values.items():
        tensor = as_tensor(value, read_storage)
        if tensor is None:
            if name in _NOT_WEIGHTS:
                continue
            what = f"a {value.of}" if isinstance(value, Instance) else f"a {type(value).__name__}"
            raise ValueError(f"{str(name)[:80]!r} holds {what}, expected a tensor")
        state[str(name)] = tensor
    if not state:
        raise ValueError("holds no tensors")
    return state
