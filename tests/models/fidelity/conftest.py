"""The comparison that `scripts/make_fidelity.py` makes, for tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def fidelity(repository: Path) -> Iterator[ModuleType]:
    """The package `scripts/fidelity` with its parts."""
    folder = str(repository / "scripts")
    sys.path.insert(0, folder)
    try:
        for part in ("matching", "recorded", "stages", "photos", "report"):
            import_module(f"fidelity.{part}")
        yield import_module("fidelity")
    finally:
        sys.path.remove(folder)
