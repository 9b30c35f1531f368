"""Which pictures a job finds, and what it calls them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from segcli.errors import DataError, UsageError
from segcli.prediction.walk import (
    escape_name,
    find_pictures,
    name_pictures,
    natural_key,
    path_of,
)


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def keys(root: Path, **options: object) -> list[str]:
    return [found.key for found in find_pictures(root, **options).pictures]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "ordered",
    [
        pytest.param(["img1", "img2", "img10"], id="numbers"),
        pytest.param(["0", "00", "007", "8"], id="leading zeros"),
        pytest.param(["a.jpg", "a2.jpg", "a10.jpg", "ab.jpg"], id="suffix before digits"),
        pytest.param(["A1", "a2", "B1"], id="capitals beside small letters"),
        pytest.param(["a/z", "a b/a", "a2/1", "a10/1"], id="folder by folder"),
        pytest.param(["x" + "9" * 200, "x1" + "0" * 200], id="huge numbers"),
    ],
)
def test_natural_order(ordered: list[str]) -> None:
    """Numbers in names count as numbers, and folders stay together."""
    assert sorted(set(ordered), key=natural_key) == ordered


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("plain.jpg", id="plain"),
        pytest.param("caf\udce9.jpg", id="latin-1 byte"),
        pytest.param("back\\slash.jpg", id="backslash"),
        pytest.param("\\xff.jpg", id="looks escaped"),
        pytest.param("\\x5cxff.jpg", id="looks escaped twice"),
        pytest.param("\\\udcff\\x8\udc80", id="mixed"),
        pytest.param("a\nb\u2028c.jpg", id="line breaks"),
    ],
)
def test_escaped_names_are_unicode_and_lead_back(name: str) -> None:
    """Every file name becomes proper Unicode from which the file is found again."""
    key = escape_name(name)
    assert json.loads(json.dumps(key).encode("utf-8")) == key
    key.encode("utf-8")
    assert path_of(Path("r"), key) == Path("r") / name


def test_escaping_is_unambiguous() -> None:
    """A byte that is no UTF-8 and a name that spells its escape have different keys."""
    assert escape_name("\udcff") == "\\xff"
    assert escape_name("\\xff") == "\\x5cxff"


def test_suffixes_folders_and_order(tmp_path: Path) -> None:
    """Pictures of any depth are found by suffix in any case; others and AppleDouble files are not."""
    touch(tmp_path, "b.JPG", "a/2.png", "a/10.png", "n.txt", "noend", ".hidden.png", "._b.JPG")
    assert keys(tmp_path) == [".hidden.png", "a/2.png", "a/10.png", "b.JPG"]
    assert keys(tmp_path, recursive=False) == [".hidden.png", "b.JPG"]


def test_empty_folder(tmp_path: Path) -> None:
    """An empty folder has no pictures."""
    assert find_pictures(tmp_path).pictures == ()


def test_absent_folder(tmp_path: Path) -> None:
    """A folder that cannot be listed is refused by name."""
    with pytest.raises(DataError, match=r"gone: cannot list this folder \(No such file"):
        find_pictures(tmp_path / "gone")


def test_output_is_skipped_by_name_and_by_link(tmp_path: Path) -> None:
    """What lies in the output is never an input, whichever way leads there."""
    touch(tmp_path, "a.png", "out/overlays/a.png")
    (tmp_path / "way").symlink_to(tmp_path / "out" / "overlays")
    assert keys(tmp_path, skip=tmp_path / "out") == ["a.png"]
    assert len(keys(tmp_path)) == 2


def test_links_are_followed_once_and_real_names_win(tmp_path: Path) -> None:
    """A folder that is there by name and by link, and a link to a folder above, are walked once."""
    touch(tmp_path / "in", "z/1.png")
    touch(tmp_path, "elsewhere/deep/2.png")
    (tmp_path / "in" / "a").symlink_to(tmp_path / "in" / "z")
    (tmp_path / "in" / "up").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "m").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "n").symlink_to(tmp_path / "elsewhere")
    assert keys(tmp_path / "in") == ["m/deep/2.png", "z/1.png"]
    assert keys(tmp_path / "in", recursive=False) == []


def test_links_to_files_and_to_nothing(tmp_path: Path) -> None:
    """A linked picture counts; a link that leads nowhere does too, so that it is reported as failed."""
    touch(tmp_path, "real.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "real.png")
    (tmp_path / "lost.png").symlink_to(tmp_path / "nothing")
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    found = find_pictures(tmp_path).pictures
    assert [(f.key, f.bytes) for f in found] == [
        ("link.png", 1),
        ("lost.png", 0),
        ("real.png", 1),
        ("self.png", 0),
    ]


def test_pipes_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pipe named like a picture would be waited on for ever; it is left out and named."""
    os.mkfifo(tmp_path / "p.png")
    assert keys(tmp_path) == []
    assert "p.png: not a file but a pipe or device" in capsys.readouterr().err


def test_unreadable_folders_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that cannot be listed does not stop the others."""
    touch(tmp_path, "a/1.png", "b/2.png")
    scan = os.scandir

    def scandir(path: Path) -> object:
        if path.name == "a":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = find_pictures(tmp_path)
    assert [f.key for f in found.pictures] == ["b/2.png"]
    assert found.unreadable == (("a/", "Permission denied"),)


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    """Such a file gets a key of proper Unicode, and the key leads to the file."""
    raw = os.fsencode(tmp_path) + b"/caf\xe9.png"
    with open(raw, "wb") as stream:  # noqa: PTH123
        stream.write(b"xyz")
    found = find_pictures(tmp_path)
    assert [f.key for f in found.pictures] == ["caf\\xe9.png"]
    assert found.path("caf\\xe9.png").read_bytes() == b"xyz"


def test_single_files_are_named_from_their_common_folder(tmp_path: Path) -> None:
    """Keys are relative to the deepest common folder; a file given twice counts once; any suffix is taken."""
    touch(tmp_path, "x/a.png", "x/y/b.dat")
    given = [tmp_path / "x/y/b.dat", tmp_path / "x/a.png", tmp_path / "x/y/../a.png"]
    inputs = name_pictures(given)
    assert [f.key for f in inputs.pictures] == ["a.png", "y/b.dat"]
    assert inputs.root == tmp_path / "x"
    assert name_pictures(given[:1]).pictures[0].key == "b.dat"


def test_files_without_a_common_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files on two drives are refused."""

    def commonpath(_paths: object) -> str:
        raise ValueError("Paths don't have the same drive")

    monkeypatch.setattr(os.path, "commonpath", commonpath)
    with pytest.raises(UsageError, match="run once per drive"):
        name_pictures([tmp_path / "a.png"])
