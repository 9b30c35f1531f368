"""Which addresses are fetched at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from segcli import download
from segcli.download import check_address, fetch
from segcli.errors import UsageError


@pytest.mark.parametrize(
    "address",
    [
        pytest.param("http://192.0.2.1/w.pth", id="http"),
        pytest.param("HTTP://example.invalid/w.pth", id="capitals"),
        pytest.param("http://localhost.example.invalid/w", id="looks like this machine"),
        pytest.param("http://127.0.0.1@example.invalid/w", id="user name like this machine"),
        pytest.param("ftp://127.0.0.1/w", id="ftp"),
        pytest.param("file:///etc/hostname", id="file"),
        pytest.param("w.pth", id="no address"),
        pytest.param("", id="empty"),
    ],
)
def test_refused_without_a_request(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anything but https, and http to this machine, is refused before anything is opened."""

    def opened(*_: object) -> None:
        raise AssertionError("a request was made")

    monkeypatch.setattr(download.urllib.request, "build_opener", opened)
    with pytest.raises(UsageError, match="only https"):
        fetch(address, tmp_path / "w.pth", hash_prefix="00")
    assert not (tmp_path / "w.pth.lock").exists()


@pytest.mark.parametrize(
    "address",
    ["https://example.invalid/a", "HTTPS://x/a", "http://localhost:1/a", "http://[::1]:1/a"],
)
def test_allowed_addresses(address: str) -> None:
    """Https anywhere, http on this machine."""
    check_address(address)


def test_a_file_that_is_there_is_taken(tmp_path: Path) -> None:
    """What the user put there is used without any request."""
    target = tmp_path / "w.pth"
    target.write_bytes(b"by hand")

    assert fetch("https://example.invalid/w.pth", target, hash_prefix="00") == target
