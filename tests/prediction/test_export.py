"""`predictions.json` and `failed.jsonl`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from segcli.categories import Categories
from segcli.instances import Instances
from segcli.masks import Masks
from segcli.prediction.export import failures, write_failed, write_predictions
from segcli.prediction.pipeline import Outcome, Source
from segcli.prediction.plan import Plan, parse
from segcli.prediction.recording import row_of
from segcli.prediction.shards import ShardWriter, read_index
from segcli.prediction.walk import Found

CATEGORIES = Categories(("cat", "dög"), (7, 9))


def plan_of(keys: list[str]) -> Plan:
    plan = Plan()
    return parse(plan.section(plan.compare([Found(k, 1, 1) for k in keys]), 1))


def outcome(key: str, n: int) -> Outcome:
    dense = np.zeros((n, 4, 6), bool)
    dense[:, 1:3, 2:5] = True
    masks = Masks.from_dense(dense) if n else Masks.empty((4, 6))
    labels = np.arange(n, dtype=np.int32) % 2
    scores = np.linspace(1, 0.5, n, dtype=np.float32)
    found = Instances((4, 6), masks.boxes(), labels, scores, masks)
    return Outcome(Source(key, Path(key)), found, None, (4, 6))


def test_nothing(tmp_path: Path) -> None:
    """Without a result the file is still whole COCO."""
    write_predictions(tmp_path, Plan(), {}, CATEGORIES)
    data = json.loads((tmp_path / "predictions.json").read_bytes())
    assert data == {"images": [], "categories": CATEGORIES.to_coco(), "annotations": []}


def test_ids_order_and_fields(tmp_path: Path) -> None:
    """Pictures in natural order, ids from 1 without gaps, failures left out, COCO's own fields."""
    plan = plan_of(["p2", "p10", "p1", "todo"])
    broken = Outcome(Source("p2", Path("p2")), None, "broken", None)
    with ShardWriter(tmp_path) as writer:
        for made in (outcome("p10", 2), broken, outcome("p1", 1)):
            writer.add([row_of(made, plan.current[made.source.key].batch)])
    index = read_index(tmp_path, plan)
    write_predictions(tmp_path, plan, index, CATEGORIES)
    data = json.loads((tmp_path / "predictions.json").read_bytes())
    assert data["images"] == [
        {"id": 1, "file_name": "p1", "width": 6, "height": 4},
        {"id": 2, "file_name": "p10", "width": 6, "height": 4},
    ]
    rows = data["annotations"]
    assert [(r["id"], r["image_id"], r["category_id"]) for r in rows] == [
        (1, 1, 7),
        (2, 2, 7),
        (3, 2, 9),
    ]
    first = {k: v for k, v in rows[0].items() if k != "segmentation"}
    assert first == {
        "id": 1,
        "image_id": 1,
        "category_id": 7,
        "bbox": [2.0, 1.0, 3.0, 2.0],
        "area": 6,
        "score": 1.0,
        "iscrowd": 0,
    }
    assert list(failures(plan, index)) == [("p2", "broken")]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_pycocotools_reads_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file loads in pycocotools, masks and all."""
    plan = plan_of(["a"])
    with ShardWriter(tmp_path) as writer:
        writer.add([row_of(outcome("a", 1), 0)])
    write_predictions(tmp_path, plan, read_index(tmp_path, plan), CATEGORIES)
    coco = COCO(str(tmp_path / "predictions.json"))
    assert coco.annToMask(coco.anns[1]).sum() == 6
    assert coco.loadCats([9])[0]["name"] == "dög"


def test_failed(tmp_path: Path) -> None:
    """A line per failure; an empty file where nothing failed."""
    write_failed(tmp_path, [("ü\n.png", "broken"), ("b/", "no")])
    lines = (tmp_path / "failed.jsonl").read_bytes().split(b"\n")[:-1]
    assert [json.loads(line) for line in lines] == [
        {"file": "ü\n.png", "error": "broken"},
        {"file": "b/", "error": "no"},
    ]
    write_failed(tmp_path, [])
    assert (tmp_path / "failed.jsonl").read_bytes() == b""
