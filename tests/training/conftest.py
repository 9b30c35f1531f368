"""A dataset of bright squares that a small network learns in seconds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def squares(tmp_path: Path) -> Callable[..., Path]:
    """Write `name.json` and `name/` with noisy pictures of bright squares (class `square`) and return the json."""

    def make(name: str, pictures: int = 4, classes: tuple[str, ...] = ("square",)) -> Path:
        rng = np.random.default_rng(len(name))
        folder = tmp_path / name
        folder.mkdir()
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for i in range(pictures):
            pixels = rng.integers(0, 80, (64, 96, 3), dtype=np.uint8)
            for _ in range(2):
                x, y, side = (int(v) for v in rng.integers((0, 0, 16), (64, 32, 32)))
                pixels[y : y + side, x : x + side] = 230
                corners = [x, y, x + side, y, x + side, y + side, x, y + side]
                annotations.append(
                    {
                        "id": len(annotations) + 1, "image_id": i, "iscrowd": 0, "area": side * side,
                        "category_id": 1 + len(annotations) % len(classes),
                        "bbox": [x, y, side, side], "segmentation": [corners],
                    }
                )  # fmt: skip
            Image.fromarray(pixels).save(folder / f"{i}.png")
            images.append({"id": i, "file_name": f"{i}.png", "height": 64, "width": 96})
        categories = [{"id": k + 1, "name": c} for k, c in enumerate(classes)]
        path = tmp_path / f"{name}.json"
        path.write_text(
            json.dumps({"images": images, "annotations": annotations, "categories": categories})
        )
        return path

    return make
