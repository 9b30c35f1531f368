"""Our own weights: safetensors with one JSON record that says what they are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from segcli.models.spec import ModelSpec

_KEY = "segcli"


@dataclass(frozen=True)
class OwnCheckpoint:
    """What a file of ours holds.

    Attributes:
        spec: the network.
        info: everything else that was stored: categories, training figures, licence, source.
        state: the state dict.
    """

    spec: ModelSpec
    info: dict[str, Any]
    state: dict[str, Tensor]


def encode(spec: ModelSpec, info: dict[str, Any], state: dict[str, Tensor]) -> bytes:
    """The bytes of a checkpoint file; the same input gives the same bytes."""
    record = json.dumps({"spec": spec.to_dict(), "info": info}, sort_keys=True, ensure_ascii=False)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(state.items())}
    data: bytes = save(plain, metadata={_KEY: record})
    return data


def is_own(path: Path) -> bool:
    """Whether a safetensors file has our record.

    Raises:
        ValueError: no readable safetensors file.
    """
    return _KEY in _metadata(path)


def _metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise ValueError(f"no readable safetensors file ({error})") from error


def read_header(path: Path) -> tuple[ModelSpec, dict[str, Any]]:
    """Spec and information only; no weights are read.

    Raises:
        ValueError: no safetensors file, or not one of ours.
    """
    metadata = _metadata(path)
    if _KEY not in metadata:
        raise ValueError(
            "safetensors without segcli's record, so its architecture and classes are unknown"
        )
    try:
        record = json.loads(metadata[_KEY])
        return ModelSpec.from_dict(record["spec"]), dict(record["info"])
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"damaged segcli record ({error})") from error


def read(path: Path) -> OwnCheckpoint:
    """The whole checkpoint.

    Raises:
        ValueError: see `read_header`.
    """
    spec, info = read_header(path)
    with safe_open(path, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
    return OwnCheckpoint(spec, info, state)
