"""`instances.csv` and `counts.csv`: the objects at or above the draw score, for spreadsheets.

A cell of text that starts with `=`, `+`, `-` or `@` gets a `'` in front, so that no spreadsheet takes it for a formula.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segcli.categories import Categories
from segcli.files import atomic_writer
from segcli.prediction.recording import drawn_objects, instances_of

INSTANCES = "instances.csv"
COUNTS = "counts.csv"
COLUMNS = (
    "file",
    "object",
    "class",
    "score",
    "x",
    "y",
    "width",
    "height",
    "area",
    "mask_share",
    "centroid_x",
    "centroid_y",
)


def write_tables(
    out: Path,
    rows: Iterable[dict[str, Any]],
    categories: Categories,
    *,
    draw_score: float,
    classes: Sequence[str] = (),
) -> None:
    """Write both tables in one pass.

    `instances.csv` has a line per object: its number (its place in the picture's row, from 1; the same as in the mask
    PNGs), box in pixels, area in pixels of the mask (of the box where there is no mask), that area as a share of the
    picture, and the centroid in pixels (0, 0 is the picture's top-left corner, so a pixel's middle is at ½).
    `counts.csv` has a line per picture, pictures without objects too: objects of each class, and in all.

    Args:
        out: the OUT folder.
        rows: good rows.
        categories: what labels mean.
        draw_score: objects below are left out.
        classes: the columns of `counts.csv`; empty = all classes.
    """
    labels = _columns(categories, classes)
    with (
        atomic_writer(out / INSTANCES) as instances,
        atomic_writer(out / COUNTS) as counts,
    ):
        instances.write(_line(COLUMNS))
        counts.write(_line(["file", *(_text(categories.names[i]) for i in labels), "total"]))
        for row in rows:
            kept = list(_described(row, categories, draw_score))
            instances.writelines(_line(cells) for _, cells in kept)
            found = Counter(label for label, _ in kept)
            numbers = [found[label] for label in labels]
            counts.write(_line([_text(row["file"]), *numbers, len(kept)]))


def _columns(categories: Categories, classes: Sequence[str]) -> list[int]:
    if classes:
        table = categories.label_of_name()
        return [table[name] for name in classes]
    return [i for i in range(len(categories)) if not categories.is_placeholder(i)]


def _described(
    row: dict[str, Any], categories: Categories, draw_score: float
) -> Iterator[tuple[int, list[object]]]:
    """Label and cells of each object at or above the draw score."""
    instances = instances_of(row)
    pixels = row["height"] * row["width"]
    for i in drawn_objects(instances, draw_score):
        found = row["objects"][i]
        x, y, width, height = found["bbox"]
        centroid = (x + width / 2, y + height / 2)
        if instances.masks is not None and found["area"] > 0:
            crop, (left, top) = instances.masks.crop(i)
            rows, columns = np.nonzero(crop)
            centroid = (left + columns.mean() + 0.5, top + rows.mean() + 0.5)
        share = found["area"] / pixels
        box = [f"{v:.2f}" for v in (x, y, width, height)]
        area = f"{found['area']:.10g}"
        head: list[object] = [_text(row["file"]), i + 1, _text(categories.names[found["label"]])]
        yield (
            found["label"],
            [*head, f"{found['score']:.6g}", *box, area, f"{share:.6g}"]
            + [f"{v:.2f}" for v in centroid],
        )


def _text(value: str) -> str:
    return f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _line(cells: Iterable[object]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer).writerow(cells)
    return buffer.getvalue().encode("utf-8", "backslashreplace")
