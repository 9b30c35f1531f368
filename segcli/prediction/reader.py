"""Predictions read back: a COCO file, a bare results list, or an OUT folder, ours or another tool's.

Nothing is opened but the file itself: the picture names in it are only names.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segcli import config
from segcli.categories import Categories
from segcli.console import say
from segcli.data.findings import as_id
from segcli.errors import DataError
from segcli.prediction.rows import Id, PredictedPicture, Row, Size, has_mask

_PICTURE_KEYS = frozenset({"id", "file_name", "height", "width"})
_FILE_KEYS = frozenset({"images", "annotations", "categories"})
_EXPECTED = "expected COCO predictions, a bare results list, or an OUT folder of `segcli predict`"


@dataclass(frozen=True, eq=False)
class PredictionsFile:
    """Predictions of many pictures.

    Attributes:
        source: the file or folder.
        categories: the classes; None for a bare list, which carries only ids.
        category_ids: the id of each label (for a bare list: those that occur, in order).
        pictures: in the order of the file.
        extra: what else the file's head says (`info`, `video`).
    """

    source: Path
    categories: Categories | None
    category_ids: tuple[Id, ...]
    pictures: Sequence[PredictedPicture]
    extra: dict[str, Any] = field(default_factory=dict)


def read_predictions(path: Path) -> PredictionsFile:
    """Read a COCO dict, a bare results list, or an OUT folder of `segcli predict`.

    Args:
        path: the file or folder. A folder's `predictions.json` is read where there is one, else its shards.

    Raises:
        DataError: nothing there, or damaged.
    """
    if path.is_dir():
        return _read_folder(path)
    data = _load(path)
    if isinstance(data, dict):
        return _read_coco(path, data)
    if isinstance(data, list):
        return _read_list(path, data)
    raise DataError(f"{path}: found a JSON {type(data).__name__}; {_EXPECTED}")


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot read predictions ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a JSON file ({error}); {_EXPECTED}") from error


def _read_coco(path: Path, data: dict[str, Any]) -> PredictionsFile:
    categories = _categories(path, data)
    images = _entries(path, data, "images", ("id",))
    _refuse_twice(path, "images: id", (image["id"] for image in images))
    rows = _rows_by_picture(path, _entries(path, data, "annotations", ("image_id", "category_id")))
    _refuse_unknown(path, "image_id", rows, {image["id"] for image in images})
    labels = categories.label_of_id()
    found = {row["category_id"]: row for many in rows.values() for row in many}
    _refuse_unknown(path, "category_id", found, labels)
    pictures = [_picture(path, image, rows.get(image["id"], []), labels) for image in images]
    extra = {k: v for k, v in data.items() if k not in _FILE_KEYS}
    return PredictionsFile(path, categories, categories.ids, pictures, extra)


def _read_list(path: Path, data: list[Any]) -> PredictionsFile:
    rows = _rows_by_picture(
        path, _entries(path, {"results": data}, "results", ("image_id", "category_id"))
    )
    found = {row["category_id"] for many in rows.values() for row in many}
    ids = tuple(sorted(found, key=lambda i: (isinstance(i, str), i)))
    labels = {category_id: label for label, category_id in enumerate(ids)}
    pictures = [_picture(path, {"id": i}, many, labels) for i, many in rows.items()]
    return PredictionsFile(path, None, ids, pictures)


def _read_folder(folder: Path) -> PredictionsFile:
    whole = folder / "predictions.json"
    if whole.is_file():
        return read_predictions(whole)
    if not (folder / "shards").is_dir():
        raise DataError(f"{folder}: neither predictions.json nor shards in it; {_EXPECTED}")
    return _read_shards(folder)


def _read_shards(folder: Path) -> PredictionsFile:
    from segcli.prediction.shards import latest_rows  # brings locks and writing along

    resolved = config.load(folder / config.FILE_NAME).get("resolved", {})
    categories = _categories(folder / config.FILE_NAME, resolved)
    labels = categories.label_of_id()
    # labels in shards count the model's own order of classes, which need not be that of the ids
    stored = tuple(entry["id"] for entry in resolved["categories"])
    pictures: list[PredictedPicture] = []
    failed = 0
    for row in latest_rows(folder):
        if "error" in row:
            failed += 1
            continue
        head = {"id": len(pictures) + 1, "file_name": row["file"]}
        head |= {key: row[key] for key in ("height", "width")}
        objects = [_with_id(o, stored) for o in row["objects"]]
        pictures.append(_picture(folder, head, objects, labels))
    if failed:
        say(f"{folder}: {failed} pictures failed and have no predictions")
    return PredictionsFile(folder, categories, categories.ids, pictures)


def _with_id(row: Row, ids: Sequence[Id]) -> Row:
    """A shard's object with the category id that its label stands for."""
    return {**row, "category_id": ids[row["label"]]}


def _picture(path: Path, image: Row, rows: list[Row], labels: Mapping[Id, int]) -> PredictedPicture:
    name = image.get("file_name")
    if name is not None and not isinstance(name, str):
        raise DataError(f"{path}: file_name {name!r} of picture {image['id']}: expected text")
    return PredictedPicture(
        source=path,
        image_id=image["id"],
        file_name=name,
        size=_size(path, image, rows),
        rows=tuple(rows),
        label_of_id=labels,
        extra={k: v for k, v in image.items() if k not in _PICTURE_KEYS},
    )


def _size(path: Path, image: Row, rows: list[Row]) -> Size | None:
    """(H, W) from the picture's entry, else from the first RLE; None where neither says."""
    pair: Any = (image.get("height"), image.get("width"))
    if None in pair:
        masks = (row["segmentation"] for row in rows if has_mask(row))
        pair = next((m.get("size") for m in masks if isinstance(m, dict)), None)
    if pair is None:
        return None
    if len(pair) == 2 and all(isinstance(v, int) and v > 0 for v in pair):
        return int(pair[0]), int(pair[1])
    raise DataError(f"{path}: picture {image['id']} of size {pair!r}: expected height, width ≥ 1")


def _categories(path: Path, data: Row) -> Categories:
    rows = _entries(path, data, "categories", ("id", "name"))
    try:
        return Categories.from_coco(rows)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _entries(path: Path, data: Row, key: str, needed: tuple[str, ...]) -> list[Row]:
    """The list `key` of a file, each entry a dict that has all the `needed` keys."""
    entries = data.get(key)
    if not isinstance(entries, list):
        found = ", ".join(list(data)[:5]) or "nothing"
        raise DataError(f"{path}: no list `{key}` in it (found {found}); {_EXPECTED}")
    for number, entry in enumerate(entries):
        lacks = [k for k in needed if not isinstance(entry, dict) or as_id(entry.get(k)) is None]
        if lacks:
            raise DataError(f"{path}: {key}[{number}] has no usable `{lacks[0]}`: damaged file?")
    return entries


def _rows_by_picture(path: Path, entries: list[Row]) -> dict[Id, list[Row]]:
    """Rows grouped by picture, in the order of the file."""
    rows: dict[Id, list[Row]] = defaultdict(list)
    for number, entry in enumerate(entries):
        if not entry.get("bbox") and not has_mask(entry):
            raise DataError(f"{path}: prediction {number} has neither bbox nor segmentation")
        rows[entry["image_id"]].append(entry)
    return dict(rows)


def _refuse_twice(path: Path, what: str, ids: Any) -> None:
    twice = [i for i, times in Counter(ids).items() if times > 1]
    if twice:
        raise DataError(f"{path}: {what} {twice[0]!r} stands there more than once: damaged file?")


def _refuse_unknown(
    path: Path, key: str, found: Mapping[Id, Any], known: Mapping[Id, Any] | set[Id]
) -> None:
    unknown = [i for i in found if i not in known]
    if unknown:
        raise DataError(
            f"{path}: {key} {unknown[0]!r} of an annotation is not listed in the file: damaged file?"
        )
