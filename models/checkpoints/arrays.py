"""Tensors from what pickles say of them: PyTorch's own records and numpy's arrays, without numpy."""

from __future__ import annotations

import math
from collections.abc import Callable
from reprlib import repr as short
from typing import Any

import torch
from torch import Tensor

from segcli.models.checkpoints.pickle_values import STORAGES, Instance, Name, Reference

ReadStorage = Callable[[Reference], Tensor]
_NUMPY_TYPES = {
    "f2": "float16", "f4": "float32", "f8": "float64", "i1": "int8", "i2": "int16", "i4": "int32", "i8": "int64",
    "u1": "uint8", "b1": "bool",
}  # fmt: skip
_CORE = ("numpy.core", "numpy._core")


def dtype_of(storage: Any) -> torch.dtype:
    """Element type of a storage class.

    Raises:
        ValueError: not one of a plain number type.
    """
    if not isinstance(storage, Name) or storage.module != "torch" or storage.name not in STORAGES:
        raise ValueError(f"tensor of an unknown type ({short(storage)})")
    dtype = getattr(torch, STORAGES[storage.name])
    assert isinstance(dtype, torch.dtype)
    return dtype


def as_tensor(value: Any, read_storage: ReadStorage) -> Tensor | None:
    """The tensor that a value of a pickle stands for; None if it stands for something else.

    Args:
        value: what `PickleMachine` gave.
        read_storage: gives the one-dimensional contents of a reference.

    Raises:
        ValueError: a tensor, but damaged or of a kind that weights never have.
    """
    if not isinstance(value, Instance):
        return None
    name, arguments = str(value.of), value.arguments
    try:
        if name in (
            "torch._utils._rebuild_parameter",
            "torch._utils._rebuild_parameter_with_state",
        ):
            return as_tensor(arguments[0], read_storage)
        if name in ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"):
            reference, offset, size, stride = arguments[:4]
            return _view(read_storage(reference), offset, tuple(size), tuple(stride))
        if name in [f"{core}.multiarray._reconstruct" for core in _CORE]:
            _, shape, kind, fortran, data = value.state
            return _array(data, kind, shape, bool(fortran))
        if name in [f"{core}.numeric._frombuffer" for core in _CORE]:
            data, kind, shape, order = arguments
            return _array(data, kind, shape, order == "F")
        if name in [f"{core}.multiarray.scalar" for core in _CORE]:
            return _array(arguments[1], arguments[0], (), False)
    except (TypeError, IndexError, RuntimeError, AttributeError) as error:
        raise ValueError(f"damaged tensor ({error})") from error
    return None


def _view(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """A part of a storage; one that claims more elements than the storage has is refused."""
    count = math.prod(size)
    if min((*size, *stride, offset, 0)) < 0 or len(size) != len(stride):
        raise ValueError("damaged tensor (negative or unequal sizes)")
    if count > len(storage):
        raise ValueError(f"tensor claims {count} elements, its storage has {len(storage)}")
    if count == 0:
        return storage.new_empty(size)
    return torch.as_strided(storage, size, stride, offset)


def from_bytes(data: bytes | bytearray | memoryview, dtype: torch.dtype) -> Tensor:
    """A one-dimensional tensor over the bytes; shares memory with a bytearray."""
    if len(data) % dtype.itemsize:
        raise ValueError(f"{len(data)} bytes are no whole number of {dtype}")
    if not data:
        return torch.empty(0, dtype=dtype)
    return torch.frombuffer(data if isinstance(data, bytearray) else bytearray(data), dtype=dtype)


def _array(data: Any, kind: Any, shape: Any, fortran: bool) -> Tensor:
    flat = from_bytes(_raw(data), _numpy_dtype(kind))
    shape = tuple(int(side) for side in shape)
    if min((*shape, 0)) < 0 or math.prod(shape) != len(flat):
        raise ValueError(f"array claims shape {shape}, its data has {len(flat)} elements")
    if fortran:
        return flat.reshape(shape[::-1]).permute(*range(len(shape))[::-1]).contiguous()
    return flat.reshape(shape)


def _raw(data: Any) -> bytes | bytearray:
    """Bytes as Python 3 stores them, as Python 2 did (text of 8 bits), or as protocol 2 does (`_codecs.encode`)."""
    if isinstance(data, Instance) and str(data.of) == "_codecs.encode":
        text, encoding = data.arguments
        if encoding not in ("latin1", "latin-1"):
            raise ValueError(f"bytes in the encoding {short(encoding)}")
        data = text
    if isinstance(data, Instance) and str(data.of) in ("builtins.bytes", "__builtin__.bytes"):
        data = data.arguments[0] if data.arguments else b""
    if isinstance(data, str):
        data = data.encode("latin-1")
    if not isinstance(data, bytes | bytearray):
        raise ValueError("an array of Python objects, expected numbers")
    return data


def _numpy_dtype(kind: Any) -> torch.dtype:
    if not isinstance(kind, Instance) or str(kind.of) != "numpy.dtype":
        raise ValueError("array of an unknown type")
    code, order = kind.arguments[0], kind.state[1] if kind.state else "<"
    if code not in _NUMPY_TYPES:
        raise ValueError(f"array of type {short(code)}, expected numbers")
    if order not in ("<", "|", "="):
        raise ValueError("big-endian array; weights are little-endian")
    dtype = getattr(torch, _NUMPY_TYPES[code])
    assert isinstance(dtype, torch.dtype)
    return dtype
