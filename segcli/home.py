"""SEGCLI_HOME: where caches lie, private to the user."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from segcli.errors import OutputError


def home_folder() -> Path:
    """The folder for caches: `SEGCLI_HOME`, else the platform's cache folder."""
    given = os.environ.get("SEGCLI_HOME")
    if given:
        return Path(given).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "segcli"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "segcli"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "segcli"


def cache_folder(name: str) -> Path:
    """A folder under SEGCLI_HOME, made with mode 0700.

    Raises:
        OutputError: it belongs to another user, or cannot be made.
    """
    home = home_folder()
    folder = home / name
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        owner = folder.stat()
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot make the cache folder ({error.strerror}); set SEGCLI_HOME to a folder of yours"
        ) from error
    if hasattr(os, "getuid") and owner.st_uid != os.getuid():
        raise OutputError(
            f"{folder}: belongs to another user; set SEGCLI_HOME to a folder of yours"
        )
    if stat.S_IMODE(owner.st_mode) & 0o077 and os.name != "nt":
        folder.chmod(0o700)
    return folder
