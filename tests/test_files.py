"""Whole files or none, and locks that end with their process."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from segcli import files
from segcli.errors import OutputError
from segcli.files import atomic_writer, folder_lock, sha256, turn, write_bytes

HOLD = """
import sys, time
from pathlib import Path
from segcli.files import folder_lock, turn
folder = Path(sys.argv[1])
with folder_lock(folder) if sys.argv[2] == "folder" else turn(folder / "f.lock", "?"):
    print("held", flush=True)
    time.sleep(float(sys.argv[3]))
"""


class BrokenError(Exception):
    """Raised by a writer half-way."""


@pytest.fixture
def umask() -> Iterator[None]:
    """Gives the process its umask back."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def holder(folder: Path, kind: str = "folder", seconds: float = 60) -> subprocess.Popen[str]:
    """A process that holds a lock, once this returns."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), kind, str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def names(folder: Path) -> list[str]:
    """What lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


def fail_half_way(target: Path, error: type[BaseException]) -> None:
    """Begin to write, then fail."""
    with atomic_writer(target) as stream:
        stream.write(b"half")
        raise error


def fail_while_holding(folder: Path) -> None:
    """Take the lock, see that it is taken, then fail."""
    with folder_lock(folder):
        with pytest.raises(OutputError, match="in use"):
            folder_lock(folder).__enter__()
        raise BrokenError


def end(process: subprocess.Popen[str]) -> None:
    """Kill it as the system would, and close its pipe."""
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize("fsync", [True, False])
def test_written_whole(tmp_path: Path, fsync: bool) -> None:
    """The file has the bytes, missing folders are made, nothing else stays."""
    target = tmp_path / "new" / "deep" / "a.bin"
    write_bytes(target, b"", fsync=fsync)
    assert target.read_bytes() == b""
    write_bytes(target, b"abc", fsync=fsync)

    assert target.read_bytes() == b"abc"
    assert names(target.parent) == ["a.bin"]


def test_not_there_before_the_end(tmp_path: Path) -> None:
    """While it is written the final name shows the old file, or none."""
    target = tmp_path / "a.bin"
    for before in (None, b"old"):
        if before is not None:
            target.write_bytes(before)
        with atomic_writer(target) as stream:
            stream.write(b"new")
            stream.flush()
            assert (target.read_bytes() if target.exists() else None) == before
        assert target.read_bytes() == b"new"
        target.unlink()


@pytest.mark.parametrize("error", [BrokenError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("old", [None, b"old"], ids=["new", "old kept"])
def test_an_error_leaves_what_was(
    tmp_path: Path, error: type[BaseException], old: bytes | None
) -> None:
    """A write that fails, or is interrupted, leaves no file, or the old one."""
    target = tmp_path / "a.bin"
    if old is not None:
        target.write_bytes(old)
    with pytest.raises(error):
        fail_half_way(target, error)

    assert names(tmp_path) == ([] if old is None else ["a.bin"])
    assert old is None or target.read_bytes() == old


@pytest.mark.parametrize(
    ("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)], ids=["022", "077", "002"]
)
def test_permissions_follow_the_umask(tmp_path: Path, umask: None, mask: int, mode: int) -> None:
    """A new file has the bits that `open` would give it."""
    os.umask(mask)
    write_bytes(tmp_path / "a.bin", b"x")

    assert (tmp_path / "a.bin").stat().st_mode & 0o777 == mode


def test_threads_leave_the_umask_alone(tmp_path: Path, umask: None) -> None:
    """Many files written at once end with the same bits, and the process's umask is as before."""

    def write(number: int) -> None:
        for k in range(30):
            write_bytes(tmp_path / f"{number}-{k}", b"x", fsync=False)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {p.stat().st_mode & 0o777 for p in tmp_path.iterdir()} == {0o644}
    now = os.umask(0o022)
    assert now == 0o022


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("a" * 255, id="255 letters"),
        pytest.param("写" * 85, id="85 characters of 3 bytes"),
        pytest.param("a b'\"$\n.bin", id="awkward characters"),
        pytest.param(".hidden", id="hidden"),
    ],
)
def test_awkward_names(tmp_path: Path, name: str) -> None:
    """Every name that the file system takes can be written."""
    write_bytes(tmp_path / name, b"x")

    assert names(tmp_path) == [name]


def test_a_folder_in_the_way(tmp_path: Path) -> None:
    """A target that is a folder is refused and left alone."""
    (tmp_path / "a").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        write_bytes(tmp_path / "a", b"x")

    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda path: write_bytes(path / "x.bin", b"x"), id="file"),
        pytest.param(lambda path: folder_lock(path / "x").__enter__(), id="lock"),
        pytest.param(lambda path: folder_lock(path).__enter__(), id="lock on a file"),
    ],
)
def test_a_file_in_the_way(tmp_path: Path, write: object) -> None:
    """A folder that is a file is an OutputError that names the path."""
    (tmp_path / "a").write_bytes(b"")
    assert callable(write)
    with pytest.raises(OutputError, match=r"a.*: cannot write here \("):
        write(tmp_path / "a")


def test_lock_refuses_a_second_process(tmp_path: Path) -> None:
    """While one process holds a folder another is refused; it is free again after kill -9."""
    folder = tmp_path / "out"
    process = holder(folder)
    try:
        with pytest.raises(OutputError, match="in use by another segcli process"):
            folder_lock(folder).__enter__()
    finally:
        end(process)

    with folder_lock(folder):
        assert [p.name for p in folder.iterdir()] == [".lock"]


def test_lock_ends_with_its_block(tmp_path: Path) -> None:
    """A folder is free after the block, also after an error in it; within one process it is held too."""
    with pytest.raises(BrokenError):
        fail_while_holding(tmp_path)
    with folder_lock(tmp_path):
        pass


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where locks do not work that is said, and not that somebody holds one."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files, "_lock", refuse)
    with pytest.raises(OutputError, match="cannot lock"):
        folder_lock(tmp_path).__enter__()
    with pytest.raises(OSError, match="No locks"):
        turn(tmp_path / "f.lock", "?").__enter__()


def test_turn_waits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A turn that another process has is waited for, and that is said once."""
    process = holder(tmp_path, "turn", 0.5)
    start = time.monotonic()
    with turn(tmp_path / "f.lock", "somebody is at it"):
        waited = time.monotonic() - start
    end(process)

    assert 0.2 < waited < 20
    assert capsys.readouterr().err == "somebody is at it\n"
    with turn(tmp_path / "f.lock", "somebody is at it"):
        assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    ],
    ids=["empty", "abc"],
)
def test_sha256(tmp_path: Path, data: bytes, expected: str) -> None:
    """The published test values of SHA-256."""
    (tmp_path / "a").write_bytes(data)

    assert sha256(tmp_path / "a") == expected
