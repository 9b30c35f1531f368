"""A predictor without a network, and `segcli` with it in place of the real one.

Run as a program it is `segcli`, slowed down, held until a file appears, and killed at chosen moments by FAKE_*
variables of the environment.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segcli.categories import Categories
from segcli.config import PredictConfig
from segcli.instances import Instances
from segcli.masks import Masks

CATEGORIES = Categories(("red", "=green", "N/A", "blue"), (3, 5, 6, 9))
LABELS = (0, 1, 3)


class FakePredictor:
    """Finds the bright part of each channel; scores depend on batch mates, as padding makes real ones do."""

    def __init__(self, config: PredictConfig) -> None:
        self.config = config
        self.categories = CATEGORIES
        self.batch_size = config.batch_size or 1
        self.batches: list[int] = []
        self.resolved: dict[str, Any] = {
            "model_sha256": config.model,
            "categories": CATEGORIES.to_coco(),
            "batch_size": self.batch_size,
            "score": config.score,
            "conventions": {"numerics": {"eps": 0.0}},
        }

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return image

    def predict(self, pictures: Sequence[NDArray[np.uint8]]) -> list[Instances]:
        time.sleep(float(os.environ.get("FAKE_DELAY", "0")))
        gate = os.environ.get("FAKE_GATE")
        while gate and not Path(gate).exists():
            time.sleep(0.005)
        self.batches.append(len(pictures))
        padding = max(p.shape[0] for p in pictures) / 10000
        return [self._one(picture, padding) for picture in pictures]

    def _one(self, picture: NDArray[np.uint8], padding: float) -> Instances:
        size = (picture.shape[0], picture.shape[1])
        dense = np.stack([picture[..., c] > 128 for c in range(3)])
        masks = Masks.from_dense(dense)
        scores = np.array([picture[..., c].mean() / 256 + padding for c in range(3)], np.float32)
        found = Instances(size, masks.boxes(), np.array(LABELS, np.int32), scores, masks)
        return found[(masks.area() > 0) & (scores >= self.config.score)]


def open_predictor(
    config: PredictConfig,
    roi_align: str = "auto",
    *,
    facts: object = None,
) -> FakePredictor:
    return FakePredictor(config)


def module() -> types.ModuleType:
    """What stands in for `segcli.prediction.loading`."""
    fake = types.ModuleType("segcli.prediction.loading")
    fake.open_predictor = open_predictor  # type: ignore[attr-defined]
    return fake


def _die_at_rename(number: int, *, before: bool) -> None:
    """Kill this process, as `kill -9` does, just before or after its n-th file appears."""
    rename, count = Path.replace, iter(range(1, 1_000_000))

    def replace(self: Path, target: Path) -> Path:
        mine = next(count) == number
        if mine and before:
            os.kill(os.getpid(), signal.SIGKILL)
        result = rename(self, target)
        if mine:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    Path.replace = replace  # type: ignore[method-assign,assignment]


def _main() -> None:
    from segcli.cli.main import run
    from segcli.prediction import shards

    sys.modules["segcli.prediction.loading"] = module()
    shards.MAX_PICTURES = int(os.environ.get("FAKE_SHARD", "256"))
    point = os.environ.get("FAKE_KILL", "")
    if point:
        when, number = point.split(":")
        _die_at_rename(int(number), before=when == "before")
    run()


if __name__ == "__main__":
    _main()
