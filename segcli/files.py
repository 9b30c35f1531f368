"""Writing so that a file appears under its final name only when it is whole, and locks on folders."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from segcli.console import say
from segcli.errors import OutputError

# what the systems say where a disk, or the user's share of it, is full
NO_ROOM = frozenset({errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)})
_A_DAY = 86_400  # seconds


@contextmanager
def atomic_writer(path: Path, *, fsync: bool = True) -> Iterator[IO[bytes]]:
    """Open a binary file that takes its name `path` only when the block ends without an error.

    Written beside the target, fsynced (file, then folder), renamed. A failed write leaves nothing behind.

    Raises:
        OutputError: the folder cannot be written to.
    """
    if path.is_dir():
        raise OutputError(f"{path}: is a folder, expected a file name; choose another name")
    # 50 characters are at most 200 bytes, so that the whole name stays below the file system's 255
    temporary = path.with_name(f".{path.name[:50]}.{secrets.token_hex(8)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = temporary.open("xb")
    except OSError as error:
        raise OutputError(f"{path}: cannot write here ({error.strerror})") from error
    try:
        with opened as stream:
            yield stream
            stream.flush()
            if fsync:
                os.fsync(stream.fileno())
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


def drop_abandoned(scratch: Iterable[Path]) -> None:
    """Delete files and folders that a killed process left: those that have not changed for a day."""
    for path in scratch:
        with suppress(FileNotFoundError):  # another process has just finished with it
            if time.time() - path.stat().st_mtime <= _A_DAY:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


def fsync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut, where the platform can (not Windows)."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process; the system lets go by itself when the process dies.

    Raises:
        OutputError: another process holds it, or it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        opened = (folder / ".lock").open("a+b")
    except OSError as error:
        raise OutputError(f"{folder}: cannot write here ({error.strerror})") from error
    with opened as stream:
        try:
            _lock(stream)
        except OSError as error:
            if error.errno in _HELD:
                raise OutputError(
                    f"{folder}: in use by another segcli process; wait for it or choose another --output"
                ) from error
            raise OutputError(
                f"{folder}: this file system cannot lock ({error.strerror}); choose another --output"
            ) from error
        yield


@contextmanager
def turn(path: Path, waiting: str) -> Iterator[None]:
    """Wait until no other process holds the lock file `path`, and hold it.

    Args:
        path: the lock file; it stays behind, empty.
        waiting: what to say where there is somebody to wait for.
    """
    with path.open("a+b") as stream:
        try:
            _lock(stream)
        except OSError as error:
            if error.errno not in _HELD:
                raise
            say(waiting)
            _lock(stream, wait=True)
        yield


# what the systems call a lock that another process holds
_HELD = frozenset({errno.EAGAIN, errno.EACCES, errno.EDEADLK})


def _lock(stream: IO[bytes], *, wait: bool = False) -> None:
    if os.name == "nt":  # pragma: no cover
        import msvcrt

        mode = msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK  # type: ignore[attr-defined,unused-ignore]
        msvcrt.locking(stream.fileno(), mode, 1)  # type: ignore[attr-defined,unused-ignore]
    else:
        import fcntl

        fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def sha256(path: Path) -> str:
    """Hash of a file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
