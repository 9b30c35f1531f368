"""Where caches lie, and that nobody else writes there."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from segcli.errors import OutputError
from segcli.home import cache_folder, home_folder


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        pytest.param("linux", {"SEGCLI_HOME": "/x/y"}, "/x/y", id="given"),
        pytest.param("linux", {"SEGCLI_HOME": "~/y"}, "/home/u/y", id="given, tilde"),
        pytest.param("linux", {"SEGCLI_HOME": ""}, "/home/u/.cache/segcli", id="given, empty"),
        pytest.param("linux", {}, "/home/u/.cache/segcli", id="linux"),
        pytest.param("linux", {"XDG_CACHE_HOME": "/c"}, "/c/segcli", id="linux, XDG"),
        pytest.param(
            "linux", {"XDG_CACHE_HOME": ""}, "/home/u/.cache/segcli", id="linux, XDG empty"
        ),
        pytest.param("darwin", {}, "/home/u/Library/Caches/segcli", id="mac"),
        pytest.param("win32", {"LOCALAPPDATA": "/l"}, "/l/segcli", id="windows"),
        pytest.param("win32", {}, "/home/u/AppData/Local/segcli", id="windows, bare"),
    ],
)
def test_home_folder(
    platform: str, environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SEGCLI_HOME, else the platform's cache folder; an empty variable is none."""
    for name in ("SEGCLI_HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/u")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)

    assert home_folder() == Path(expected)


def test_cache_folder_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders are made with mode 0700, whatever the umask; a second call finds them."""
    monkeypatch.setenv("SEGCLI_HOME", str(tmp_path / "deep" / "home"))
    before = os.umask(0)
    try:
        folder = cache_folder("weights")
    finally:
        os.umask(before)

    assert folder == tmp_path / "deep" / "home" / "weights"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    assert cache_folder("weights") == folder


def test_an_open_cache_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that others may read or write is made private; the user's own folder above is not touched."""
    monkeypatch.setenv("SEGCLI_HOME", str(tmp_path))
    tmp_path.chmod(0o755)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights").chmod(0o777)

    assert cache_folder("weights").stat().st_mode & 0o777 == 0o700
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def test_somebody_elses_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of another user's is refused, since what lies in it would be trusted."""
    monkeypatch.setenv("SEGCLI_HOME", str(tmp_path))
    monkeypatch.setattr(os, "getuid", lambda: (tmp_path.stat().st_uid) + 1)
    with pytest.raises(OutputError, match="belongs to another user; set SEGCLI_HOME"):
        cache_folder("weights")


def test_a_file_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that cannot be made is an error that says what to set."""
    (tmp_path / "home").write_bytes(b"")
    monkeypatch.setenv("SEGCLI_HOME", str(tmp_path / "home"))
    with pytest.raises(OutputError, match=r"cannot make the cache folder.*set SEGCLI_HOME"):
        cache_folder("weights")
