"""Why something failed, in one line."""

from __future__ import annotations

from pathlib import Path

from segcli.errors import SegcliError


def reason(error: Exception, path: Path) -> str:
    """Why a picture could not be used, in one line and without its path, which stands beside it."""
    if isinstance(error, SegcliError):
        return str(error).removeprefix(f"{path}: ")
    if isinstance(error, OSError):
        return error.strerror or first_line(error)
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    return f"{type(error).__name__}: {first_line(error)}"


def first_line(error: BaseException) -> str:
    """What an error says, cut to a line; its type where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]
