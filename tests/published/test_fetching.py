"""Published weights into the cache: hashes, pins, mirrors, and the switch that forbids it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from segcli.errors import ModelError, UsageError
from segcli.published import PublishedWeights, find
from segcli.published.fetching import fetch_weights, mirrored

DATA = b"weights" * 1000
MD5 = hashlib.md5(DATA, usedforsecurity=False).hexdigest()
SHA256 = hashlib.sha256(DATA).hexdigest()
PATH = "detectron2/x/1/model_final_abc.pkl"


def row(address: str | None, **changes: Any) -> PublishedWeights:
    """A row that is fetched from `address`."""
    base = find("detectron2/mask-rcnn-r50-fpn-3x")
    return replace(base, address=address, **{"hash_prefix": MD5[:6], **changes})


def pin(tmp_path: Path) -> Path:
    """Where the hash of the first download is kept."""
    return tmp_path / "segcli-home" / "weights" / "model_final_abc.pkl.sha256"


def test_md5_is_checked_and_sha256_pinned(
    file_server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """detectron2's names carry an MD5 prefix, too weak alone: the SHA-256 is kept, and said."""
    weights = row(file_server.put(PATH, DATA))
    path = fetch_weights(weights)
    assert path.read_bytes() == DATA
    assert path.name == "model_final_abc.pkl"
    assert path.parent.stat().st_mode & 0o077 == 0
    assert pin(tmp_path).read_text().strip() == SHA256
    assert f"SHA-256 {SHA256}, pinned" in capsys.readouterr().err
    assert fetch_weights(weights) == path
    assert file_server.asked == [f"/{PATH}"]


def test_a_later_download_must_be_the_same(file_server: Any, tmp_path: Path) -> None:
    """Another file under the address is refused and deleted, until the user deletes the pin."""
    weights = row(file_server.put(PATH, DATA), hash_prefix=None, hash_kind=None)
    path = fetch_weights(weights)
    path.unlink()
    file_server.put(PATH, DATA[::-1])
    with pytest.raises(ModelError, match=rf"expected {SHA256} as at the first download.*deleted"):
        fetch_weights(weights)
    assert {p.name for p in path.parent.iterdir()} == {f"{path.name}.sha256", f"{path.name}.lock"}
    pin(tmp_path).unlink()
    assert fetch_weights(weights).read_bytes() == DATA[::-1]


def test_a_damaged_pin_is_not_taken_for_one(file_server: Any, tmp_path: Path) -> None:
    """Whatever it holds, it is not the file's hash."""
    pin(tmp_path).parent.mkdir(parents=True)
    pin(tmp_path).write_bytes(b"\xff\x00")
    with pytest.raises(ModelError, match="first download"):
        fetch_weights(row(file_server.put(PATH, DATA)))


def test_a_wrong_md5_deletes_and_pins_nothing(file_server: Any, tmp_path: Path) -> None:
    """The message says both."""
    weights = row(file_server.put(PATH, DATA), hash_prefix="000000")
    with pytest.raises(ModelError, match=rf"MD5 begins with {MD5[:8]}, expected 000000"):
        fetch_weights(weights)
    assert not pin(tmp_path).exists()
    assert {p.suffix for p in pin(tmp_path).parent.iterdir()} == {".lock"}


def test_a_sha256_of_the_name_needs_no_pin(file_server: Any, tmp_path: Path) -> None:
    """The names of torchvision and mmdetection carry it."""
    weights = row(file_server.put(PATH, DATA), hash_prefix=SHA256[:8], hash_kind="sha256")
    assert fetch_weights(weights).read_bytes() == DATA
    assert not pin(tmp_path).exists()


@pytest.mark.parametrize("value", ["1", "true", "YES"])
def test_offline(
    value: str, file_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is asked for; the message says where the file would go, and what is there is used."""
    weights = row(file_server.put(PATH, DATA))
    monkeypatch.setenv("SEGCLI_OFFLINE", value)
    with pytest.raises(ModelError, match=r"SEGCLI_OFFLINE.*put the file at .*model_final_abc\.pkl"):
        fetch_weights(weights)
    assert file_server.asked == []
    place = pin(tmp_path).with_suffix("")
    place.write_bytes(DATA)
    assert fetch_weights(weights) == place


@pytest.mark.parametrize("value", ["", "0", "no", "False"])
def test_not_offline(value: str, file_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty or negative value forbids nothing."""
    monkeypatch.setenv("SEGCLI_OFFLINE", value)
    assert fetch_weights(row(file_server.put(PATH, DATA))).read_bytes() == DATA


@pytest.mark.parametrize("folder", ["", "/", "/keep", "/keep/"])
def test_a_mirror_has_the_same_paths(folder: str, file_server: Any) -> None:
    """Also below a folder; the hash is checked as ever, the publisher is not asked."""
    file_server.put(f"{folder.strip('/')}/{PATH}".lstrip("/"), DATA)
    weights = row(f"https://dl.example.invalid/{PATH}")
    path = fetch_weights(weights, mirror=file_server.address + folder)
    assert path.read_bytes() == DATA


def test_a_mirror_with_another_file_is_refused(file_server: Any) -> None:
    """A mirror is trusted no more than the publisher."""
    file_server.put(PATH, b"else")
    with pytest.raises(ModelError, match="MD5 begins with"):
        fetch_weights(row(f"https://dl.example.invalid/{PATH}"), mirror=file_server.address)


@pytest.mark.parametrize(
    "mirror",
    ["http://192.0.2.1", "ftp://x.invalid", "", "files", "https://", "https://x.invalid/a?b=c"],
)
def test_mirrors_that_are_not_allowed(mirror: str) -> None:
    """Only https or this machine, and nothing but a path."""
    with pytest.raises(UsageError):
        mirrored(f"https://dl.example.invalid/{PATH}", mirror)


def test_a_mirrors_paths_stay_as_they_are_written() -> None:
    """Some of mmdetection's have a `%2B`."""
    found = mirrored("https://a.invalid/gn%2Bws/x.pth", "https://b.invalid/m/")
    assert found == "https://b.invalid/m/gn%2Bws/x.pth"


def test_weights_without_an_address() -> None:
    """The reason and the page are named."""
    with pytest.raises(ModelError, match=r"Google Drive.*see https://github\.com"):
        fetch_weights(find("mmdetection/mask-rcnn-r50-fpn-15e-deepfashion"))
