"""Fixtures that all tests share."""

from __future__ import annotations

import functools
import http.server
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """Path of real data beside the checkout, e.g. `shared("data/coco80")`; skips by name where absent."""

    def find(relative: str) -> Path:
        path = SHARED / relative
        if not path.exists():
            pytest.skip(f"shared/{relative} is not beside this checkout")
        return path

    return find


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches go to a folder of the test's own."""
    monkeypatch.setenv("SEGCLI_HOME", str(tmp_path / "segcli-home"))


@pytest.fixture(scope="session", autouse=True)
def _one_thread_per_process() -> None:
    """Two cores run several processes here; more threads than cores only slow each other down."""
    os.environ.setdefault("OMP_NUM_THREADS", "2")


@pytest.fixture(scope="session", autouse=True)
def _compiled_by_these_tests_alone(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Inductor's files are made here, once."""
    folder = tmp_path_factory.getbasetemp() / "inductor"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))


@dataclass
class FileServer:
    """A server on this machine that gives out the files of a folder.

    Attributes:
        folder: what it gives out.
        address: without a trailing slash.
        asked: paths of the requests, in order.
    """

    folder: Path
    address: str = ""
    asked: list[str] = field(default_factory=list)

    def put(self, path: str, data: bytes) -> str:
        """Give out `data` under a path; its address."""
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        return f"{self.address}/{path}"


class _Handler(http.server.SimpleHTTPRequestHandler):
    state: FileServer

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.state.asked.append(self.path)
        super().do_GET()


@pytest.fixture
def file_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """Files over http on this machine; proxies of the environment are not asked."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    state = FileServer(tmp_path / "www")
    state.folder.mkdir()
    bound = type("Bound", (_Handler,), {"state": state})
    handler = functools.partial(bound, directory=str(state.folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as service:
        state.address = f"http://127.0.0.1:{service.server_port}"
        thread = threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        service.shutdown()
        thread.join()
