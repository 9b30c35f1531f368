"""Files of predictions in their three forms, and damaged ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segcli import config
from segcli.errors import DataError, UsageError
from segcli.instances import Instances
from segcli.masks import Masks
from segcli.prediction.pipeline import Outcome, Source
from segcli.prediction.reader import read_predictions
from segcli.prediction.recording import row_of
from segcli.prediction.shards import ShardWriter

BOX = [1, 1, 3, 3]


def coco(**changes: Any) -> dict[str, Any]:
    """A small file of predictions."""
    return {
        "images": [
            {"id": 1, "file_name": "a/b.jpg", "height": 10, "width": 20},
            {"id": 2, "file_name": "IN#000123", "pts": 7, "time_base": "1/25"},
        ],
        "categories": [{"id": 9, "name": "dog"}, {"id": 4, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 2, "category_id": 9, "bbox": BOX, "score": 0.5},
            {"id": 2, "image_id": 1, "category_id": 4, "bbox": BOX, "score": 0.25},
            {"id": 3, "image_id": 1, "category_id": 9, "bbox": BOX, "score": 0.75},
        ],
        **changes,
    }


def write(folder: Path, data: Any) -> Path:
    path = folder / "p.json"
    path.write_text(json.dumps(data))
    return path


def test_coco(tmp_path: Path) -> None:
    """Pictures in the file's order with their own rows; labels index the categories, which are sorted by id."""
    file = read_predictions(write(tmp_path, coco(info={"a": 1}, video={"sha256": "x"})))
    assert file.categories is not None
    assert file.categories.names == ("cat", "dog")
    assert file.category_ids == (4, 9)
    first, second = file.pictures
    assert (first.image_id, first.file_name, first.size) == (1, "a/b.jpg", (10, 20))
    assert first.instances().labels.tolist() == [0, 1]
    assert first.objects().scores.tolist() == [0.25, 0.75]
    assert (second.file_name, second.size, second.extra) == (
        "IN#000123",
        None,
        {"pts": 7, "time_base": "1/25"},
    )
    assert second.instances((30, 40)).image_size == (30, 40)
    assert file.extra == {"info": {"a": 1}, "video": {"sha256": "x"}}


def test_bare_list(tmp_path: Path) -> None:
    """Pictures in the order in which they occur, no names; labels index the ids that occur, sorted."""
    rle = {"size": [4, 5], "counts": [20]}
    rows = [
        {"image_id": "x", "category_id": 10, "bbox": BOX, "score": 0.5},
        {"image_id": 7, "category_id": 9, "segmentation": rle, "score": 0.5},
        {"image_id": "x", "category_id": 9, "bbox": BOX, "score": 0.6},
    ]
    file = read_predictions(write(tmp_path, rows))
    assert file.categories is None
    assert file.category_ids == (9, 10)
    assert [(p.image_id, p.file_name, p.size) for p in file.pictures] == [
        ("x", None, None),
        (7, None, (4, 5)),
    ]
    assert file.pictures[0].objects().labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("data", "pictures"),
    [
        pytest.param([], 0, id="empty list"),
        pytest.param(coco(annotations=[]), 2, id="no objects"),
        pytest.param(coco(images=[], annotations=[], categories=[]), 0, id="empty dict"),
    ],
)
def test_nothing_in_it(tmp_path: Path, data: Any, pictures: int) -> None:
    """Files without objects, or without anything, are read."""
    file = read_predictions(write(tmp_path, data))
    assert [len(p.rows) for p in file.pictures] == [0] * pictures


def damaged(key: str, **changes: Any) -> dict[str, Any]:
    """The small file with the first entry of a list changed; `None` deletes a field."""
    data = coco()
    entry = {**data[key][0], **changes}
    data[key][0] = {k: v for k, v in entry.items() if v is not None}
    return data


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(7, "found a JSON int; expected COCO", id="a number"),
        pytest.param({}, "no list `categories` in it .found nothing", id="empty"),
        pytest.param({"a": 1, "categories": {}}, "no list `categories`.*found a", id="no list"),
        pytest.param(coco(images=None), "no list `images`", id="no images"),
        pytest.param(
            coco(annotations=[3]), r"annotations\[0\] has no usable `image_id`", id="no row"
        ),
        pytest.param(coco(images=[{}]), r"images\[0\] has no usable `id`", id="no id"),
        pytest.param(
            coco(categories=[{"id": 1}]), "categories.0. has no usable `name`", id="no name"
        ),
        pytest.param([{"image_id": 1, "bbox": BOX}], "no usable `category_id`", id="no class"),
        pytest.param(damaged("annotations", image_id=[1]), "no usable `image_id`", id="list id"),
        pytest.param(damaged("annotations", image_id=33), "image_id 33 .*not listed", id="picture"),
        pytest.param(
            damaged("annotations", category_id=33), "category_id 33 .*not listed", id="class"
        ),
        pytest.param(
            damaged("annotations", bbox=None), "0 has neither bbox nor segm", id="no object"
        ),
        pytest.param(
            damaged("images", id=2), "images: id 2 stands there more than once", id="twice"
        ),
        pytest.param(
            damaged("images", height=0), "size .0, 20.: expected height, width", id="size"
        ),
        pytest.param(damaged("images", width="9"), "expected height, width", id="text size"),
        pytest.param(damaged("images", file_name=3), "file_name 3 of picture 1", id="name"),
        pytest.param(damaged("categories", id=4), "ids must be unique", id="equal classes"),
    ],
)
def test_damaged_files(tmp_path: Path, data: Any, expected: str) -> None:
    """Each damage is named in one line, with the file."""
    with pytest.raises(DataError, match=f"p.json: .*{expected}") as caught:
        read_predictions(write(tmp_path, data))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b'[{"image_id": 1', id="cut off"),
        pytest.param(b"\xff\xfe\x00", id="binary"),
        pytest.param(b"[" * 100_000, id="nested too deep"),
    ],
)
def test_no_json(tmp_path: Path, content: bytes) -> None:
    """What is no JSON is said to be none."""
    path = tmp_path / "p.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"p.json: not a JSON file"):
        read_predictions(path)


def test_absent_file(tmp_path: Path) -> None:
    """An absent file is said to be absent."""
    with pytest.raises(DataError, match=r"p.json: cannot read predictions \(No such file"):
        read_predictions(tmp_path / "p.json")


def shards(out: Path) -> None:
    """An OUT folder without predictions.json: two good pictures and a failed one."""
    head = {"schema": 1, "section": 0, "batch_size": 3}
    keys = ("a.jpg", "b/c.jpg", "d.jpg")
    plan = [head, *({"file": key, "bytes": 1, "mtime_ns": 1, "batch": 0} for key in keys)]
    (out / "plan.jsonl").write_text("".join(json.dumps(row) + "\n" for row in plan))
    masks = Masks.from_dense(np.eye(4, 6, dtype=bool)[None])
    boxes, label = np.array([[0.1, 0, 4, 4]], np.float32), np.array([1], np.int32)
    good = Instances((4, 6), boxes, label, np.array([0.3], np.float32), masks)
    rows = [
        row_of(Outcome(Source("a.jpg", out), good, None, (4, 6)), 0),
        row_of(Outcome(Source("b/c.jpg", out), None, "no picture", None), 0),
        row_of(Outcome(Source("d.jpg", out), Instances.empty((5, 5)), None, (5, 5)), 0),
    ]
    with ShardWriter(out) as writer:
        writer.add(rows)
    resolved = {"categories": [{"id": 3, "name": "cat"}, {"id": 8, "name": "dog"}]}
    (out / "config.toml").write_text(config.dump("predict", {}, resolved))


def test_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An OUT folder without an export is read from its shards, in the plan's order, failed pictures left out."""
    shards(tmp_path)
    file = read_predictions(tmp_path)
    assert file.categories is not None
    assert file.categories.names == ("cat", "dog")
    assert [(p.image_id, p.file_name, p.size) for p in file.pictures] == [
        (1, "a.jpg", (4, 6)),
        (2, "d.jpg", (5, 5)),
    ]
    found = file.pictures[0].instances()
    assert found.labels.tolist() == [1]
    assert found.boxes[0].tolist() == [np.float32(0.1), 0, 4, 4]
    assert found.scores is not None
    assert found.scores.tolist() == [np.float32(0.3)]
    assert found.masks is not None
    assert found.masks.area().tolist() == [4]
    assert "1 pictures failed" in capsys.readouterr().err


def test_the_export_of_a_folder_goes_first(tmp_path: Path) -> None:
    """Where an OUT folder has predictions.json, that is read."""
    shards(tmp_path)
    (tmp_path / "predictions.json").write_text(json.dumps(coco()))
    assert read_predictions(tmp_path).source == tmp_path / "predictions.json"


def test_some_folder(tmp_path: Path) -> None:
    """A folder that is no OUT is refused, and what was expected is said."""
    with pytest.raises(DataError, match=r"neither predictions.json nor shards.*expected"):
        read_predictions(tmp_path)
    (tmp_path / "shards").mkdir()
    with pytest.raises(UsageError, match=r"config.toml: cannot read"):
        read_predictions(tmp_path)
