r"""Which pictures a job is about: their keys, where they lie, and their order.

A *key* is the normalised path relative to the input root, with `/`. It is always proper Unicode, so that it can stand
in JSON, CSV and TOML: a byte of a file name that is no UTF-8 is written `\xHH`, and `path_of` finds the file again.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segcli.console import warn
from segcli.errors import DataError, UsageError
from segcli.images import SUFFIXES

_APPLE_DOUBLE = "._"  # macOS puts a picture's Finder data beside it as `._a.jpg` on foreign disks
_UNDECODED = re.compile(r"[\udc80-\udcff]|\\(?=x(?:5c|[89a-f][0-9a-f]))")
_NUMBER = re.compile(r"0*([0-9]+)")
_ESCAPED = re.compile(r"\\x(5c|[89a-f][0-9a-f])")


@dataclass(frozen=True, slots=True)
class Found:
    """One input picture.

    Attributes:
        key: relative path; see the module.
        bytes: its size on disk; 0 for a link that leads nowhere.
        mtime_ns: when it was last changed, nanoseconds since 1970.
    """

    key: str
    bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class Inputs:
    """All input pictures of a job.

    Attributes:
        root: the folder that keys are relative to.
        pictures: in natural order of their keys.
        unreadable: folders that could not be listed: key with a `/` behind it, and the reason.
    """

    root: Path
    pictures: tuple[Found, ...]
    unreadable: tuple[tuple[str, str], ...] = ()

    def path(self, key: str) -> Path:
        """Where a picture is."""
        return path_of(self.root, key)


def natural_key(key: str) -> tuple[str, str]:
    """Sorting key that puts `img2` before `img10`, folder by folder, capitals beside small letters."""
    # a number becomes "0", its length, its digits; "/" becomes what sorts before all else
    text = _NUMBER.sub(lambda m: f"0{chr(len(m[1]))}{m[1]}", key.casefold())
    return text.replace("/", "\0"), key


def escape_name(name: str) -> str:
    """A file name as proper Unicode; what looks like an escape already is escaped too, so it can be undone."""
    return _UNDECODED.sub(lambda m: f"\\x{ord(m[0]) & 0xFF:02x}", name)


def path_of(root: Path, key: str) -> Path:
    """The file that a key names."""

    def undo(match: re.Match[str]) -> str:
        code = int(match[1], 16)
        return chr(code) if code < 0x80 else chr(0xDC00 + code)

    return root / _ESCAPED.sub(undo, key)


def find_pictures(root: Path, *, recursive: bool = True, skip: Path | None = None) -> Inputs:
    """All pictures in a folder, chosen by suffix (any case).

    Folder links are followed, each folder once however many links lead to it; a folder that is met both by name
    and by link keeps its name. macOS's `._*` files are no pictures. A link that leads nowhere counts as a picture,
    so that it is reported as failed rather than passed over.

    Args:
        root: the folder.
        recursive: also look in its folders.
        skip: a folder inside it to leave out (the job's own output).

    Raises:
        DataError: `root` cannot be listed.
    """
    walk = _Walk(skip)
    walk.run(root, recursive=recursive)
    if walk.unreadable and walk.unreadable[0][0] == "/":
        raise DataError(f"{root}: cannot list this folder ({walk.unreadable[0][1]})")
    return Inputs(root, _sorted(walk.pictures), tuple(walk.unreadable))


def name_pictures(files: Sequence[Path]) -> Inputs:
    """Single files as inputs; keys are relative to their deepest common folder. Any suffix is taken.

    Raises:
        UsageError: the files have no folder in common (other drives of Windows).
    """
    # normalised without following links: the name that the user gave is the name that results carry
    paths = [Path(os.path.abspath(file)) for file in files]  # noqa: PTH100
    try:
        root = Path(os.path.commonpath([path.parent for path in paths]))
    except ValueError as error:
        raise UsageError(f"files without a common folder ({error}); run once per drive") from error
    named = {_key(path.relative_to(root).parts): path for path in paths}
    return Inputs(root, _sorted(_found(key, path) for key, path in named.items()))


def _key(parts: Iterable[str]) -> str:
    return "/".join(escape_name(part) for part in parts)


def _found(key: str, path: Path) -> Found:
    try:
        status = path.stat()
    except OSError:  # reading it will say why
        return Found(key, 0, 0)
    return Found(key, status.st_size, status.st_mtime_ns)


def _sorted(pictures: Iterable[Found]) -> tuple[Found, ...]:
    return tuple(sorted(pictures, key=lambda found: natural_key(found.key)))


@dataclass
class _Walk:
    """Real folders first, then links in natural order: which name a picture gets does not depend on the disk."""

    skip: Path | None
    pictures: list[Found] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    links: list[tuple[str, Path]] = field(default_factory=list)
    seen: set[tuple[int, int]] = field(default_factory=set)

    def run(self, root: Path, *, recursive: bool) -> None:
        folders = [("", root)]
        while folders or self.links:
            prefix, folder = folders.pop() if folders else self._next_link()
            if self._is_new(folder):
                inner = list(self._list(prefix, folder))
                folders += inner if recursive else []
            if not recursive:
                self.links.clear()

    def _next_link(self) -> tuple[str, Path]:
        self.links.sort(key=lambda link: natural_key(link[0]), reverse=True)
        return self.links.pop()

    def _is_new(self, folder: Path) -> bool:
        """Whether the folder was not visited before, under any name, and is not in the output."""
        try:
            status = folder.stat()
        except OSError:
            return True  # listing it will say why it cannot be read
        identity = (status.st_dev, status.st_ino)
        if identity in self.seen or (self.skip and _inside(folder, self.skip)):
            return False
        self.seen.add(identity)
        return True

    def _list(self, prefix: str, folder: Path) -> Iterator[tuple[str, Path]]:
        """Take the folder's pictures and links; yields the folders in it."""
        try:
            with os.scandir(folder) as scan:
                entries = list(scan)
        except OSError as error:
            self.unreadable.append((prefix or "/", error.strerror or str(error)))
            return
        for entry in entries:
            key, path = prefix + escape_name(entry.name), folder / entry.name
            mode = _mode(path)
            if stat.S_ISDIR(mode):
                target = (f"{key}/", path)
                if entry.is_symlink():
                    self.links.append(target)
                else:
                    yield target
            elif _is_picture(entry.name):
                self._take(key, path, mode)

    def _take(self, key: str, path: Path, mode: int) -> None:
        if mode and not stat.S_ISREG(mode):
            warn(f"{key}: not a file but a pipe or device; left out")
        else:
            self.pictures.append(_found(key, path))


def _mode(path: Path) -> int:
    """Type of what a path leads to; 0 for a link that leads nowhere."""
    try:
        return path.stat().st_mode
    except OSError:
        return 0


def _is_picture(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES and not name.startswith(_APPLE_DOUBLE)


def _inside(folder: Path, outer: Path) -> bool:
    return folder.resolve().is_relative_to(outer.resolve())
