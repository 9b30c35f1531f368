"""Small COCO files for the tests of reading datasets."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

SIZE = (20, 30)  # H, W
SQUARE = [2, 2, 10, 2, 10, 8, 2, 8]


def _rows(good: dict[str, Any], changes: Sequence[Any]) -> list[Any]:
    """Good rows with ids 1, 2, … and changes; a change to `...` takes the key away, a row of another kind stays."""
    rows: list[Any] = []
    for number, change in enumerate(changes, 1):
        if isinstance(change, dict):
            merged = {**good, "id": number, **change}
            rows.append({k: v for k, v in merged.items() if v is not ...})
        else:
            rows.append(change)
    return rows


@pytest.fixture
def write_coco(tmp_path: Path) -> Callable[..., Path]:
    """Write a COCO file; by default one picture of 20 × 30 (H, W), one class and one good annotation.

    Rows are given as changes to good ones, with ids 1, 2, ….
    """

    def write(
        annotations: Sequence[Any] = ({},),
        images: Sequence[Any] = ({},),
        categories: Sequence[Any] = ({},),
        *,
        path: Path = tmp_path / "a.json",
    ) -> Path:
        height, width = SIZE
        annotation = {"image_id": 1, "category_id": 1, "segmentation": [SQUARE]}
        annotation |= {"bbox": [2, 2, 8, 6], "area": 48.0, "iscrowd": 0}
        pictures = _rows({"height": height, "width": width, "file_name": "1.png"}, images)
        table = {
            "images": pictures,
            "annotations": _rows(annotation, annotations),
            "categories": _rows({"name": "cell"}, categories),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(table))
        return path

    return write


@pytest.fixture
def save_picture() -> Callable[..., Path]:
    """Save a small picture of (H, W) stored pixels, with an EXIF orientation where one is given."""

    def save(path: Path, size: tuple[int, int] = SIZE, orientation: int | None = None) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        if orientation is not None:
            exif[0x0112] = orientation
        Image.new("RGB", size[::-1], (200, 30, 60)).save(path, exif=exif)
        return path

    return save
