"""Rows of shards: exact numbers, and nothing that JSON cannot hold."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from segcli.errors import PredictionError
from segcli.instances import Instances
from segcli.masks import Masks
from segcli.prediction.pipeline import Outcome, Source
from segcli.prediction.recording import drawn_objects, instances_of, row_of

SOURCE = Source("a/b.png", Path("a/b.png"))


def instances(n: int = 3) -> Instances:
    rng = np.random.default_rng(n)
    size = (7, 11)
    boxes = np.sort(rng.uniform(0, 11, (n, 2, 2)).astype(np.float32), axis=1).reshape(n, 4)
    masks = Masks.from_dense(rng.uniform(size=(n, *size)) > 0.5) if n else Masks.empty(size)
    scores = rng.uniform(size=n).astype(np.float32)
    return Instances(size, boxes, np.arange(n, dtype=np.int32), scores, masks)


def outcome(found: Instances) -> Outcome:
    return Outcome(SOURCE, found, None, found.image_size)


def test_failed() -> None:
    """A failure is a row of its own kind."""
    row = row_of(Outcome(SOURCE, None, "broken", None), 4)
    assert row == {"file": "a/b.png", "batch": 4, "error": "broken"}


# pycocotools is older than this protocol of numpy 2
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("n", [0, 1, 3])
def test_there_and_back_is_exact(n: int) -> None:
    """Through JSON and back every float32 and every mask is what it was; pycocotools reads the masks."""
    given = instances(n)
    row = json.loads(json.dumps(row_of(outcome(given), 0)))
    back = instances_of(row)
    assert (row["height"], row["width"]) == back.image_size == given.image_size
    for name in ("boxes", "labels", "scores"):
        np.testing.assert_array_equal(getattr(back, name), getattr(given, name))
    assert given.masks is not None
    for i, found in enumerate(row["objects"]):
        np.testing.assert_array_equal(
            coco_mask.decode(found["segmentation"]).astype(bool), given.masks.full(i)
        )
        assert found["area"] == given.masks.full(i).sum()


def test_boxes_without_masks() -> None:
    """A model without masks gives rows without segmentation, whose area is the box's."""
    given = replace(instances(2), masks=None)
    row = row_of(outcome(given), 0)
    first = row["objects"][0]
    assert "segmentation" not in first
    assert first["area"] == first["bbox"][2] * first["bbox"][3]
    assert instances_of(row).masks is None


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"scores": np.array([np.nan, 0, 0], np.float32)}, id="nan score"),
        pytest.param({"boxes": np.full((3, 4), np.inf, np.float32)}, id="infinite box"),
        pytest.param({"scores": None}, id="no scores"),
    ],
)
def test_what_cannot_be_written_is_refused(change: dict[str, object]) -> None:
    """Numbers that are not finite are no JSON: refused by the picture's name."""
    with pytest.raises(PredictionError, match=r"a/b\.png: the model gave"):
        row_of(outcome(replace(instances(3), **change)), 0)  # type: ignore[arg-type]


def test_draw_score_is_compared_in_float32() -> None:
    """0.7 as float32 is a little less than 0.7, and yet at the draw score 0.7."""
    found = replace(instances(3), scores=np.array([0.7, 0.69, 0.8], np.float32))
    assert drawn_objects(found, 0.7) == [0, 2]
