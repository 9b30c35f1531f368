"""PyTorch's two file formats: the zip archive (since 1.6) and the row of pickles before it, which the zoos still hold.

Format: torch/serialization.py, `_save` and `_legacy_save`. Only the storages that are asked for are read.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any, BinaryIO

from torch import Tensor

from segcli.models.checkpoints.arrays import dtype_of, from_bytes
from segcli.models.checkpoints.pickle_machine import PickleMachine
from segcli.models.checkpoints.pickle_values import Reference

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_LOCAL_HEADER = 30  # bytes, before the name


@dataclass(frozen=True)
class _Extent:
    """Where a storage lies; `checksum` is None where the format has none."""

    offset: int
    size: int
    checksum: int | None = None


class StorageReader:
    """Reads storages by reference and keeps them, since several tensors may share one.

    Args:
        stream: the whole file.
        extents: by storage key.
    """

    def __init__(self, stream: BinaryIO, extents: dict[str, _Extent]) -> None:
        self._stream = stream
        self._extents = extents
        self._read: dict[str, Tensor] = {}

    def __call__(self, reference: Any) -> Tensor:
        """The storage as a one-dimensional tensor.

        Raises:
            ValueError: it is not in the file, is cut short or damaged.
        """
        kind, key, count = storage_facts(reference)
        if key not in self._read:
            dtype = dtype_of(kind)
            extent = self._extents.get(key)
            if extent is None or extent.size != count * dtype.itemsize:
                found = "nothing" if extent is None else f"{extent.size} bytes"
                raise ValueError(f"storage {key} has {found}, expected {count * dtype.itemsize}")
            self._read[key] = from_bytes(_read(self._stream, extent), dtype)
        return self._read[key]


def storage_facts(reference: Any) -> tuple[Any, str, int]:
    """Storage class, key and number of elements that a reference names.

    Raises:
        ValueError: it is no reference to a storage.
    """
    identity = reference.id if isinstance(reference, Reference) else None
    if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage":
        raise ValueError("damaged tensor (no storage)")
    if not isinstance(identity[2], str | int):
        raise ValueError("damaged tensor (a storage without a name)")
    if not isinstance(identity[4], int) or identity[4] < 0:
        raise ValueError("damaged tensor (a storage without a size)")
    if len(identity) > 5 and identity[5] is not None:
        raise ValueError(
            "a storage that is a view of another; PyTorch of before 0.4 wrote such files"
        )
    return identity[1], str(identity[2]), int(identity[4])


def _read(stream: BinaryIO, extent: _Extent) -> bytearray:
    data = bytearray(extent.size)
    stream.seek(extent.offset)
    if stream.readinto(data) != extent.size:  # type: ignore[attr-defined]  # every binary file has it
        raise ValueError("file is cut short")
    if extent.checksum and zlib.crc32(data) != extent.checksum:
        raise ValueError("file is damaged (checksum of a storage)")
    return data


def read_zip(stream: BinaryIO, size: int) -> tuple[Any, StorageReader]:
    """Value of a zip archive's pickle, and what reads its storages.

    Raises:
        ValueError: not PyTorch's, damaged, or one that would run code.
    """
    try:
        with zipfile.ZipFile(stream) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, EOFError) as error:
        raise ValueError(f"damaged or truncated zip archive ({error})") from error
    prefix = _prefix(list(entries))
    extents = {
        name.removeprefix(prefix): _zip_extent(stream, entry, size)
        for name, entry in entries.items()
        if name.startswith(prefix) and not entry.is_dir()
    }
    if "byteorder" in extents and bytes(_read(stream, extents["byteorder"])) != b"little":
        raise ValueError("written by a big-endian machine; expected little-endian")
    pickled = _read(stream, extents["data.pkl"])
    value = PickleMachine(io.BytesIO(pickled), len(pickled)).load()
    storages = {n.removeprefix("data/"): e for n, e in extents.items() if n.startswith("data/")}
    return value, StorageReader(stream, storages)


def _prefix(names: list[str]) -> str:
    pickles = [name for name in names if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError(f"zip archive with {len(pickles)} data.pkl, expected PyTorch's with one")
    prefix = pickles[0].removesuffix("data.pkl")
    if f"{prefix}constants.pkl" in names:
        raise ValueError("refused: a TorchScript program, loading it would run code")
    return prefix


def _zip_extent(stream: BinaryIO, entry: zipfile.ZipInfo, size: int) -> _Extent:
    """Where an entry's bytes lie. PyTorch never compresses, so no entry can unfold into more than the file has."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
        raise ValueError(f"refused: {entry.filename!r} is compressed, PyTorch's archives are not")
    stream.seek(entry.header_offset)
    header = stream.read(_LOCAL_HEADER)
    if len(header) != _LOCAL_HEADER or header[:4] != b"PK\x03\x04":
        raise ValueError("damaged or truncated zip archive")
    skip = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    start = entry.header_offset + _LOCAL_HEADER + skip
    if start + entry.file_size > size:
        raise ValueError(
            f"{entry.filename!r} claims {entry.file_size} bytes, more than the file has"
        )
    return _Extent(start, entry.file_size, entry.CRC)


def read_legacy(stream: BinaryIO, size: int) -> tuple[Any, StorageReader]:
    """Value and storages of the format before the zip archive; the magic number has been read.

    Raises:
        ValueError: damaged, truncated, or one that would run code.
    """
    if PickleMachine(stream, size).load() != _LEGACY_PROTOCOL:
        raise ValueError("PyTorch file of an unknown protocol")
    system = PickleMachine(stream, size).load()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("written by a big-endian machine; expected little-endian")
    machine = PickleMachine(stream, size)
    value = machine.load()
    keys = PickleMachine(stream, size).load()
    if not isinstance(keys, list):
        raise ValueError("damaged PyTorch file (no list of storages)")
    widths = {}
    for reference in machine.references:
        kind, key, _ = storage_facts(reference)
        widths[key] = dtype_of(kind).itemsize
    return value, StorageReader(stream, _legacy_extents(stream, size, keys, widths))


def _legacy_extents(
    stream: BinaryIO, size: int, keys: list[Any], widths: dict[str, int]
) -> dict[str, _Extent]:
    """Each storage is its number of elements in 8 bytes, then the elements."""
    extents = {}
    for key in map(str, keys):
        count = int.from_bytes(stream.read(8), "little")
        start = stream.tell()
        length = count * widths.get(key, 0)
        if key not in widths or start + length > size:
            raise ValueError("file is cut short, or its storages do not fit its tensors")
        extents[key] = _Extent(start, length)
        stream.seek(start + length)
    return extents
