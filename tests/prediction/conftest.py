"""Made pictures, and a predictor without a network."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

FAKE = Path(__file__).with_name("fake_job.py")


@pytest.fixture(scope="session")
def fake() -> ModuleType:
    """The module `fake_job`."""
    spec = importlib.util.spec_from_file_location("fake_job", FAKE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fake_job"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def make_picture() -> Callable[[Path, int], Path]:
    """Writes a picture of seeded blocks in the format of the path's suffix; returns the path."""

    def make(path: Path, seed: int = 0) -> Path:
        rng = np.random.default_rng(seed)
        height, width = (int(n) for n in rng.integers(9, 40, 2))
        coarse = rng.integers(0, 256, (3, 3, 3), np.uint8)
        pixels = np.kron(coarse, np.ones((height // 3, width // 3, 1), np.uint8))
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        return path

    return make


@pytest.fixture
def photos(tmp_path: Path, make_picture: Callable[[Path, int], Path]) -> Path:
    """A folder of eleven pictures in three folders, one of them broken (`b/broken.png`)."""
    root = tmp_path / "photos"
    names = ["p1.png", "p2.jpg", "p10.png", "a/x.png", "a/y.webp", "a/z.gif", "b/1.bmp", "b/2.ppm"]
    names += ["b/3.tif", "c d.png"]
    for seed, name in enumerate(names):
        make_picture(root / name, seed)
    (root / "b" / "broken.png").write_bytes(b"no picture")
    return root
