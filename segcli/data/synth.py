"""Make a dataset of synthetic scenes: pictures, COCO json, train and val. The same seed gives the same bytes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from segcli import config
from segcli.categories import Categories
from segcli.console import progress
from segcli.data.scenes import CLASS_NAMES, Scene, draw_scene
from segcli.errors import OutputError, UsageError
from segcli.files import folder_lock, write_bytes
from segcli.masks import Masks

COMMAND = "data synth"
SPLITS = ("train", "val")
VAL_SHARE = 0.2
LARGEST_SEED = 2**63 - 1
SMALL_AREA = 32**2  # COCO's bound of "small", px²
OCCLUDED_SHARE = 0.05  # an object counts as occluded when others hide at least this much of it

_PNG = (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE)


@dataclass(frozen=True)
class SynthReport:
    """What was written.

    Attributes:
        output: the folder.
        pictures: split name to number of pictures.
        objects: split name to number of objects.
        occluded: share of all objects of which others hide at least 5 %.
        small: share of all objects with less than 32² visible pixels.
        categories: the classes.
    """

    output: Path
    pictures: dict[str, int]
    objects: dict[str, int]
    occluded: float
    small: float
    categories: Categories


def synthesize(output: Path, *, images: int, seed: int = 0, overwrite: bool = False) -> SynthReport:
    """Write OUT/train.json, OUT/val.json and their pictures OUT/train/*.png, OUT/val/*.png.

    Picture k of a split depends on the seed, the split and k alone, so a larger dataset begins like a smaller one.
    Masks are the visible parts, as compressed RLE; each annotation also says in `occlusion` which share of the
    object others hide, 0..1.

    Args:
        output: folder to make; must be absent or empty unless `overwrite`.
        images: pictures in all, at least 2; one in five (at least one) goes to val.
        seed: 0 .. 2**63 - 1.
        overwrite: replace what an earlier call wrote here.

    Raises:
        UsageError: `images` or `seed` out of range.
        OutputError: the folder holds something else, or cannot be written to.
    """
    _check(images, seed)
    output = Path(output)
    _claim(output, overwrite=overwrite)
    held_out = max(1, round(images * VAL_SHARE))
    counts = {"train": images - held_out, "val": held_out}
    with folder_lock(output), progress(images, "scenes", "picture") as bar:
        if overwrite:
            _clear(output)
        settings = {"images": images, "seed": seed}
        write_bytes(output / config.FILE_NAME, config.dump(COMMAND, settings, {}).encode())
        tables = {split: _write_split(output, split, counts[split], seed, bar) for split in SPLITS}
    return _report(output, tables)


def _check(images: int, seed: int) -> None:
    if images < 2:
        raise UsageError(f"--images {images}: expected at least 2, one each for train and val")
    if not 0 <= seed <= LARGEST_SEED:
        raise UsageError(f"--seed {seed}: expected a number from 0 to {LARGEST_SEED}")


def _claim(output: Path, *, overwrite: bool) -> None:
    """Make the folder; refuse one that holds something, unless it is our own and may be replaced."""
    if output.exists() and not output.is_dir():
        raise OutputError(f"{output}: is a file; name a folder that does not exist yet")
    try:
        output.mkdir(parents=True, exist_ok=True)
        is_empty = all(path.name == ".lock" for path in output.iterdir())
    except OSError as error:
        raise OutputError(
            f"{output}: cannot be written to ({error.strerror}); choose another folder"
        ) from error
    if is_empty:
        return
    if not overwrite:
        raise OutputError(
            f"{output}: is not empty; choose another folder, or --overwrite to replace a dataset made here"
        )
    saved = output / config.FILE_NAME
    if not saved.is_file() or config.load(saved).get("command") != COMMAND:
        raise OutputError(
            f"{output}: holds no dataset of `segcli {COMMAND}`, so --overwrite deletes nothing here;"
            " choose another folder"
        )


def _clear(output: Path) -> None:
    """Delete what an earlier call wrote, and nothing else."""
    for split in SPLITS:
        (output / f"{split}.json").unlink(missing_ok=True)
        folder = output / split
        if folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder)


def scenes(split: str, count: int, seed: int) -> Iterator[Scene]:
    """The scenes of one split, one after another."""
    for index in range(count):
        source = np.random.SeedSequence([seed, SPLITS.index(split), index])
        yield draw_scene(np.random.Generator(np.random.PCG64(source)))


def _write_split(output: Path, split: str, count: int, seed: int, bar: Any) -> dict[str, Any]:
    """Write the pictures, then the json that names them; returns the json's table."""
    categories = Categories.from_names(CLASS_NAMES)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, scene in enumerate(scenes(split, count, seed), 1):
        name = f"{split}-{number:05d}.png"
        write_bytes(output / split / name, encode_png(scene), fsync=False)
        H, W = scene.image.shape[:2]
        images.append({"id": number, "file_name": name, "width": W, "height": H})
        annotations += _annotations(scene, number, len(annotations) + 1, categories)
        bar.update()
    table = {
        "info": {"description": f"segcli synthetic scenes, {split}", "seed": seed},
        "images": images,
        "annotations": annotations,
        "categories": categories.to_coco(),
    }
    text = json.dumps(table, separators=(",", ":"), allow_nan=False)
    write_bytes(output / f"{split}.json", text.encode("ascii"))
    return table


def encode_png(scene: Scene) -> bytes:
    """The picture as a PNG file; nothing but its pixels goes in."""
    done, data = cv2.imencode(".png", cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR), _PNG)
    if not done:
        raise OutputError("a synthetic picture could not be encoded as PNG; see `segcli doctor`")
    return data.tobytes()


def _annotations(
    scene: Scene, image_id: int, first_id: int, categories: Categories
) -> list[dict[str, Any]]:
    """COCO annotations of one scene; boxes are x, y, width, height in pixels."""
    masks = Masks.from_dense(scene.visible)
    areas, boxes = masks.area(), masks.boxes()
    rows = []
    for i in range(len(masks)):
        x0, y0, x1, y1 = (float(v) for v in boxes[i])
        rows.append(
            {
                "id": first_id + i,
                "image_id": image_id,
                "category_id": categories.ids[int(scene.labels[i])],
                "segmentation": masks.coco(i),
                "area": int(areas[i]),
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "iscrowd": 0,
                "occlusion": round(1 - int(areas[i]) / int(scene.whole_areas[i]), 4),
            }
        )
    return rows


def _report(output: Path, tables: dict[str, dict[str, Any]]) -> SynthReport:
    rows = [row for table in tables.values() for row in table["annotations"]]
    return SynthReport(
        output=output,
        pictures={split: len(table["images"]) for split, table in tables.items()},
        objects={split: len(table["annotations"]) for split, table in tables.items()},
        occluded=sum(row["occlusion"] >= OCCLUDED_SHARE for row in rows) / len(rows),
        small=sum(row["area"] < SMALL_AREA for row in rows) / len(rows),
        categories=Categories.from_names(CLASS_NAMES),
    )
