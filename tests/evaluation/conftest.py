"""A made dataset with predictions, hard enough that a wrong rule changes the numbers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from segcli.annotations import Dataset
from segcli.data.coco import read_coco
from segcli.masks import Masks

CATEGORIES = [{"id": 20, "name": "cell"}, {"id": 3, "name": "dog"}, {"id": 7, "name": "cat"}]
CATEGORIES += [{"id": 40, "name": "unseen"}]


@dataclass(frozen=True)
class Made:
    """A truth, its file, and predictions as a results list with both boxes and masks."""

    truth: dict[str, Any]
    path: Path
    results: list[dict[str, Any]]

    def dataset(self) -> Dataset:
        return read_coco(self.path, need_pictures=False)

    def only(self, *keys: str) -> list[dict[str, Any]]:
        """The results with only some of bbox and segmentation."""
        left = {"image_id", "category_id", "score", *keys}
        return [{k: v for k, v in row.items() if k in left} for row in self.results]

    def as_coco(self, prefix: str = "") -> dict[str, Any]:
        """The results as a COCO dict whose category ids are not the truth's."""
        numbers = {c["id"]: 100 - c["id"] for c in CATEGORIES}
        return {
            "images": [{**i, "file_name": prefix + i["file_name"]} for i in self.truth["images"]],
            "categories": [{**c, "id": numbers[c["id"]]} for c in CATEGORIES],
            "annotations": [
                {**row, "id": n, "category_id": numbers[row["category_id"]]}
                for n, row in enumerate(self.results)
            ],
        }


def _ellipse(rng: np.random.Generator, size: tuple[int, int], scale: float) -> list[float]:
    turns = np.sort(rng.uniform(0, 2 * np.pi, 9))
    x = rng.uniform(0, size[1]) + scale * np.cos(turns)
    y = rng.uniform(0, size[0]) + scale * rng.uniform(0.5, 1) * np.sin(turns)
    points = np.stack((x.clip(0, size[1]), y.clip(0, size[0])), axis=1)
    return [round(float(v), 2) for v in points.reshape(-1)]


def _rle(polygon: list[float], size: tuple[int, int]) -> dict[str, Any]:
    rle = coco_mask.frPyObjects([polygon], *size)[0]
    return {"size": list(size), "counts": rle["counts"].decode()}


def _object(rng: np.random.Generator, image: dict[str, Any]) -> dict[str, Any] | None:
    size = (image["height"], image["width"])
    polygon = _ellipse(rng, size, rng.choice([6, 20, 45, 120]))
    rle = _rle(polygon, size)
    area = int(coco_mask.area(rle))
    if area < 4:
        return None
    crowd = int(rng.random() < 0.08)
    return {
        "image_id": image["id"],
        "category_id": int(rng.choice([20, 3, 7])),
        "iscrowd": crowd,
        "area": area * float(rng.uniform(0.8, 1.2)),  # as annotated, not what the mask covers
        "bbox": coco_mask.toBbox(rle).tolist(),
        "segmentation": rle if crowd else [polygon],
    }


def _jittered(rng: np.random.Generator, entry: dict[str, Any], size: tuple[int, int]) -> Any:
    mask = entry["segmentation"] if entry["iscrowd"] else _rle(entry["segmentation"][0], size)
    shift = rng.integers(-3, 4, 2)
    dense = np.roll(Masks.from_coco([mask], size).full(0), shift, (0, 1))
    rle = coco_mask.encode(np.asfortranarray(dense.astype(np.uint8)))
    x, y, w, h = entry["bbox"]
    return {
        "image_id": entry["image_id"],
        "category_id": entry["category_id"] if rng.random() < 0.9 else 7,
        "score": round(float(rng.uniform(0.1, 1)), 1),  # many ties
        "bbox": [round(float(v), 2) for v in (x + shift[1], y + shift[0], w * 1.05, h * 0.93)],
        "segmentation": {"size": list(size), "counts": rle["counts"].decode()},
    }


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Nine pictures with unsorted ids, sparse category ids, crowds, ties, misses and doubles."""
    rng = np.random.default_rng(5)
    sizes = [
        (97, 131),
        (240, 201),
        (64, 64),
        (333, 150),
        (128, 77),
        (90, 90),
        (51, 300),
        (200, 200),
    ]
    ids = [90, 4, 17, 3, 250, 8, 61, 12, 5]
    images = [
        {"id": i, "file_name": f"set/{i:03}.jpg", "height": h, "width": w}
        for i, (h, w) in zip(ids, [*sizes, (40, 40)], strict=True)
    ]
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image in images[:-1]:  # the last picture is empty
        size = (image["height"], image["width"])
        for entry in filter(None, (_object(rng, image) for _ in range(30))):
            annotations.append({**entry, "id": len(annotations)})  # ids from 0: a trap
            results += [_jittered(rng, entry, size) for _ in range(rng.integers(0, 3))]
    truth = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    path = tmp_path_factory.mktemp("made") / "truth.json"
    path.write_text(json.dumps(truth))
    return Made(truth, path, results)
