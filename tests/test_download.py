"""Downloads against a server on this machine."""

from __future__ import annotations

import hashlib
import http.server
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from segcli.download import fetch
from segcli.errors import ModelError, UsageError
from segcli.files import turn

DATA = bytes(range(256)) * 4096  # 1 MiB
HASH = hashlib.sha256(DATA).hexdigest()


@dataclass
class Server:
    """What the server gives out, and what it was asked for.

    Attributes:
        data: the file.
        etag: its ETag; None = none is sent.
        cut: bytes after which the next answer ends; None = whole.
        ranges: Range headers of the requests, in order.
        redirect: where `/moved` leads.
        length: whether Content-Length is sent.
    """

    data: bytes = DATA
    etag: str | None = '"one"'
    cut: int | None = None
    ranges: list[str | None] = field(default_factory=list)
    redirect: str = ""
    length: bool = True
    address: str = ""


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `Server.data` under every name, with Range and If-Range as RFC 9110 has them."""

    state: Server

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        state = self.state
        state.ranges.append(self.headers.get("Range"))
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", state.redirect)
            self.end_headers()
        elif self.path == "/missing":
            self.send_error(404)
        else:
            self._send(state)

    def _send(self, state: Server) -> None:
        start, wanted = 0, self.headers.get("Range")
        if wanted and self.headers.get("If-Range") in (None, state.etag):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start and start >= len(state.data):
            self.send_error(416)
            return
        body = state.data[start:]
        self.send_response(206 if start else 200)
        if state.length:
            self.send_header("Content-Length", str(len(body)))
        if state.etag:
            self.send_header("ETag", state.etag)
        self.end_headers()
        cut, state.cut = state.cut, None
        self.wfile.write(body[:cut])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server on this machine; proxies of the environment are not asked."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    state = Server()
    handler = type("Bound", (Handler,), {"state": state})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        state.address = f"http://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        running.shutdown()
        thread.join()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where the file goes; its folder exists and is empty."""
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights" / "w.pth"


def left(target: Path) -> set[str]:
    """What lies beside the target; the lock file aside."""
    return {p.name for p in target.parent.iterdir()} - {"w.pth.lock"}


def get(server: Server, target: Path, path: str = "/w.pth", hash_prefix: str = HASH[:8]) -> Path:
    """Fetch from the server."""
    return fetch(server.address + path, target, hash_prefix=hash_prefix)


def test_whole_file(server: Server, target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file arrives, nothing else stays, the address and size are said, and a second call asks nobody."""
    assert get(server, target) == target
    assert target.read_bytes() == DATA
    assert left(target) == {"w.pth"}
    assert f"downloading {server.address}/w.pth (1 MB)" in capsys.readouterr().err
    get(server, target)
    assert server.ranges == [None]


@pytest.mark.parametrize("data", [b"", b"x"], ids=["empty", "one byte"])
def test_small_files(server: Server, target: Path, data: bytes) -> None:
    """Files of next to nothing are files."""
    server.data = data
    get(server, target, hash_prefix=hashlib.sha256(data).hexdigest())

    assert target.read_bytes() == data


def test_no_length(server: Server, target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A server that does not say how long the file is serves it all the same."""
    server.length = False
    get(server, target)

    assert target.read_bytes() == DATA
    assert "MB" not in capsys.readouterr().err


def test_wrong_hash_deletes(server: Server, target: Path) -> None:
    """A file of another hash is deleted, also its beginnings, and the message says both hashes."""
    with pytest.raises(ModelError, match=rf"begins with {HASH[:8]}, expected 00000000.*deleted"):
        get(server, target, hash_prefix="00000000")

    assert left(target) == set()


def test_cut_connection_is_gone_on_with(server: Server, target: Path) -> None:
    """What arrived before the connection broke is kept, and only the rest is asked for next time."""
    server.cut = 300_000
    with pytest.raises(ModelError, match=r"300000 of 1048576 bytes arrived.*run again"):
        get(server, target)
    assert left(target) == {"w.pth.part", "w.pth.part.etag"}
    assert (target.parent / "w.pth.part").read_bytes() == DATA[:300_000]
    get(server, target)

    assert server.ranges == [None, "bytes=300000-"]
    assert target.read_bytes() == DATA
    assert left(target) == {"w.pth"}


def test_a_changed_file_is_begun_anew(server: Server, target: Path) -> None:
    """With another ETag the old beginning is dropped, never mixed with the new file."""
    server.cut = 300_000
    with pytest.raises(ModelError):
        get(server, target)
    server.data, server.etag = DATA[::-1], '"two"'
    get(server, target, hash_prefix=hashlib.sha256(DATA[::-1]).hexdigest())

    assert target.read_bytes() == DATA[::-1]


@pytest.mark.parametrize("etag", [None, 'W/"one"', '"\u00fc"'], ids=["none", "weak", "not ascii"])
def test_without_a_strong_etag_nothing_is_gone_on_with(
    server: Server, target: Path, etag: str | None
) -> None:
    """Only a strong ETag says that the bytes are the same."""
    server.cut, server.etag = 300_000, etag
    with pytest.raises(ModelError):
        get(server, target)
    assert left(target) == {"w.pth.part"}
    get(server, target)

    assert server.ranges == [None, None]
    assert target.read_bytes() == DATA


@pytest.mark.parametrize("beginning", [DATA, DATA + b"more"], ids=["whole", "too long"])
def test_nothing_left_to_send(server: Server, target: Path, beginning: bytes) -> None:
    """A partial file that is as long as the file (killed before the rename), or longer, is fetched anew."""
    (target.parent / "w.pth.part").write_bytes(beginning)
    (target.parent / "w.pth.part.etag").write_text('"one"', "ascii")
    get(server, target)

    assert server.ranges == [f"bytes={len(beginning)}-", None]
    assert target.read_bytes() == DATA


def test_a_damaged_beginning_is_found_out(server: Server, target: Path) -> None:
    """A partial file with other bytes than the server's gives a hash that differs, and goes."""
    (target.parent / "w.pth.part").write_bytes(b"?" * 1000)
    (target.parent / "w.pth.part.etag").write_text('"one"', "ascii")
    with pytest.raises(ModelError, match="run again to fetch it anew"):
        get(server, target)

    assert left(target) == set()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_no_fault_of_the_network(server: Server, target: Path) -> None:
    """It says where room is needed, and which folder may be another."""
    (target.parent / "w.pth.part").symlink_to("/dev/full")
    with pytest.raises(
        ModelError, match=r"no space left for w\.pth; make room, or set SEGCLI_HOME"
    ):
        get(server, target)


def test_refused_by_the_server(server: Server, target: Path) -> None:
    """A file that is not there is one line: the address, the reason, what to do, where to put it."""
    with pytest.raises(ModelError, match=r"missing: cannot be downloaded \(Not Found\)") as caught:
        get(server, target, "/missing")

    assert "\n" not in str(caught.value)
    assert left(target) == set()


def test_no_server(server: Server, target: Path) -> None:
    """Without a network the message says what to do and where to put the file."""
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as unused:
        port = unused.server_port
    with pytest.raises(ModelError) as caught:
        fetch(f"http://127.0.0.1:{port}/w.pth", target, hash_prefix=HASH)

    message = str(caught.value)
    assert "connect to the network and run again" in message
    assert f"put the file at {target}" in message
    assert "\n" not in message
    assert left(target) == set()


def test_a_cache_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    """A folder that is not there is an error with its reason, not a traceback."""
    with pytest.raises(ModelError, match="No such file"):
        get(server, tmp_path / "absent" / "w.pth")


def test_redirect(server: Server, target: Path) -> None:
    """A redirect to an allowed address is followed."""
    server.redirect = f"{server.address}/w.pth"
    get(server, target, "/moved")

    assert target.read_bytes() == DATA


@pytest.mark.parametrize(
    "redirect",
    [
        "http://192.0.2.1/w.pth",
        "ftp://127.0.0.1/w.pth",
        "file:///etc/hostname",
        "http://127.0.0.1.example.invalid/w.pth",
    ],
)
def test_redirect_to_what_is_not_allowed(server: Server, target: Path, redirect: str) -> None:
    """A redirect away from https is refused, and nothing is written."""
    server.redirect = redirect
    with pytest.raises((UsageError, ModelError)):
        get(server, target, "/moved")

    assert len(server.ranges) == 1
    assert left(target) == set()


def test_one_of_two_downloads(server: Server, target: Path) -> None:
    """While another holds the turn a download waits; what the other fetched is then taken."""
    done: list[Path] = []
    with turn(target.with_name("w.pth.lock"), "?"):
        thread = threading.Thread(target=lambda: done.append(get(server, target)))
        thread.start()
        thread.join(0.3)
        assert not done
        target.write_bytes(b"by another")
    thread.join()

    assert done == [target]
    assert server.ranges == []


def test_a_header_without_sense_is_one_line(tmp_path: Path) -> None:
    """What a server answers is not ours; no traceback."""
    for header in (b"200 OK\r\nContent-Length: many", b"200 OK\r\nContent-Length: 1e3"):
        with socket.create_server(("127.0.0.1", 0)) as server:
            answer = threading.Thread(target=_answer, args=(server, header))
            answer.start()
            address = f"http://127.0.0.1:{server.getsockname()[1]}/w.pth"
            with pytest.raises(ModelError, match="cannot be downloaded"):
                fetch(address, tmp_path / "w.pth", hash_prefix=None)
            answer.join()


def _answer(server: socket.socket, header: bytes) -> None:
    with server.accept()[0] as connection:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 " + header + b"\r\n\r\nabc")
