"""Made pictures, and a predictor without a network."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segcli.config import PredictConfig
from segcli.prediction.job import Report, folder_inputs, predict_job
from segcli.prediction.options import JobOptions

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


@dataclass
class Starter:
    """Starts jobs over one folder and remembers which predictors were opened."""

    fake: ModuleType
    photos: Path
    out: Path
    opened: list[Any] = field(default_factory=list)

    def opener(self, config: PredictConfig) -> Any:
        self.opened.append(self.fake.open_predictor(config))
        return self.opened[-1]

    def options(self, **flags: Any) -> JobOptions:
        return JobOptions(**{"output": self.out, "command": "predict folder", **flags})

    def __call__(self, config: PredictConfig | None = None, **flags: Any) -> Report:
        self.opened.clear()
        options = self.options(**flags)
        config = config or PredictConfig(model="m", batch_size=3)
        inputs = folder_inputs(self.photos, options)
        return predict_job(inputs, config, options, opener=self.opener)

    def ran(self) -> int:
        """Pictures that the last start predicted."""
        return sum(n for predictor in self.opened for n in predictor.batches)

    def predictions(self) -> bytes:
        return (self.out / "predictions.json").read_bytes()

    def names(self) -> list[str]:
        return [image["file_name"] for image in json.loads(self.predictions())["images"]]

    def failed(self) -> dict[str, str]:
        lines = (self.out / "failed.jsonl").read_text().splitlines()
        return {row["file"]: row["error"] for row in map(json.loads, lines)}


@pytest.fixture
def start(fake: ModuleType, photos: Path, tmp_path: Path) -> Starter:
    return Starter(fake, photos, tmp_path / "out")
