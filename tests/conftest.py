"""Fixtures that all tests share."""

from __future__ import annotations

import os
from collections.abc import Callable
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
