"""What a job leaves for others: `predictions.json` (COCO) and `failed.jsonl`, streamed from the shards."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from segcli.categories import Categories
from segcli.files import atomic_writer
from segcli.prediction.plan import Plan
from segcli.prediction.shards import Index, encode, read_rows

PREDICTIONS = "predictions.json"
FAILED = "failed.jsonl"


def write_predictions(out: Path, plan: Plan, index: Index, categories: Categories) -> None:
    """Write `predictions.json`: `images`, `categories`, `annotations`, an entry per line.

    Pictures stand in natural order and are numbered from 1, annotations likewise, so the bytes depend only on the
    rows that count and not on how often the job was stopped. Pictures that failed are left out. The sizes of the
    pictures come from the shards' heads; rows are read one at a time.
    """
    keys = [key for key in plan.order() if key in index and index[key].error is None]
    with atomic_writer(out / PREDICTIONS) as stream:
        stream.write(b'{"images": [')
        _write_list(stream, _images(keys, index))
        stream.write(b'],\n"categories": [')
        _write_list(stream, categories.to_coco())
        stream.write(b'],\n"annotations": [')
        _write_list(stream, _annotations(read_rows(out, index, keys), categories))
        stream.write(b"]}\n")


def _images(keys: Iterable[str], index: Index) -> Iterator[dict[str, Any]]:
    for number, key in enumerate(keys, 1):
        size = index[key].size
        assert size is not None
        yield {"id": number, "file_name": key, "width": size[1], "height": size[0]}


def _annotations(
    rows: Iterable[dict[str, Any]], categories: Categories
) -> Iterator[dict[str, Any]]:
    number = 0
    for picture, row in enumerate(rows, 1):
        for found in row["objects"]:
            number += 1
            head = {
                "id": number,
                "image_id": picture,
                "category_id": categories.ids[found["label"]],
            }
            kept = {k: found[k] for k in ("bbox", "area", "segmentation", "score") if k in found}
            yield {**head, **kept, "iscrowd": 0}


def _write_list(stream: IO[bytes], entries: Iterable[dict[str, Any]]) -> None:
    between = b"\n"
    for entry in entries:
        text = json.dumps(entry, ensure_ascii=False)
        stream.write(between + text.encode("utf-8", "backslashreplace"))
        between = b",\n"


def failures(plan: Plan, index: Index) -> Iterator[tuple[str, str]]:
    """Key and reason of each picture whose row that counts is a failure, in natural order."""
    for key in plan.order():
        entry = index.get(key)
        if entry is not None and entry.error is not None:
            yield key, entry.error


def write_failed(out: Path, failed: Iterable[tuple[str, str]]) -> None:
    """Remake `failed.jsonl`: `{"file", "error"}` a line; empty where nothing failed."""
    with atomic_writer(out / FAILED) as stream:
        stream.writelines(encode({"file": key, "error": error}) for key, error in failed)
