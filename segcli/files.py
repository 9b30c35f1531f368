"""Writing so that a file appears under its final name only when it is whole, and locks on folders."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from segcli.errors import OutputError


@contextmanager
def atomic_writer(path: Path, *, fsync: bool = True) -> Iterator[IO[bytes]]:
    """Open a binary file that takes its name `path` only when the block ends without an error.

    Written beside the target, fsynced (file, then folder), renamed. A failed write leaves nothing behind.

    Raises:
        OutputError: the folder cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f".{path.name[:80]}.", suffix=".tmp", dir=path.parent
        )
    except OSError as error:
        raise OutputError(f"{path}: cannot write here ({error.strerror})") from error
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            if fsync:
                os.fsync(stream.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if fsync:
        fsync_folder(path.parent)


def write_bytes(path: Path, data: bytes, *, fsync: bool = True) -> None:
    """Write a small file atomically."""
    with atomic_writer(path, fsync=fsync) as stream:
        stream.write(data)


def fsync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut, where the platform can (not Windows)."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process; the system lets go by itself when the process dies.

    Raises:
        OutputError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+b") as stream:
        try:
            _lock(stream)
        except OSError as error:
            raise OutputError(
                f"{folder}: in use by another segcli process; wait for it or choose another --output"
            ) from error
        yield


def _lock(stream: IO[bytes]) -> None:
    if os.name == "nt":  # pragma: no cover
        import msvcrt

        msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    else:
        import fcntl

        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


def sha256(path: Path) -> str:
    """Hash of a file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
