"""Instances: checked when made, filtered by slicing, never changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from segcli.instances import Instances
from segcli.masks import Masks


def four(*, optional: bool = True) -> Instances:
    """Four objects with every field, or with the needed ones alone."""
    dense = np.zeros((4, 8, 9), bool)
    for i in range(4):
        dense[i, i : i + 2, i : i + 3] = True
    needed: dict[str, Any] = {
        "image_size": (8, 9),
        "boxes": np.arange(16, dtype=np.float32).reshape(4, 4),
        "labels": np.array([5, 6, 7, 8], np.int32),
    }
    if not optional:
        return Instances(**needed)
    return Instances(
        **needed,
        scores=np.array([0.9, 0.2, 0.7, 0.4], np.float32),
        masks=Masks.from_dense(dense),
        keypoints=np.arange(24, dtype=np.float32).reshape(4, 2, 3),
        track_ids=np.array([11, 12, 13, 14], np.int64),
    )


INDICES = [
    pytest.param(slice(None), [0, 1, 2, 3], id="all"),
    pytest.param(slice(2, None), [2, 3], id="slice"),
    pytest.param(slice(4, None), [], id="slice beyond the end"),
    pytest.param(1, [1], id="one"),
    pytest.param(-1, [3], id="from the end"),
    pytest.param([], [], id="no rows"),
    pytest.param([3, 0], [3, 0], id="list"),
    pytest.param(np.array([2, 2]), [2, 2], id="repeated"),
    pytest.param(np.array([True, False, True, False]), [0, 2], id="bool"),
    pytest.param(np.zeros(4, bool), [], id="bool, none true"),
]


def test_empty() -> None:
    """No objects: every array has its type and shape, and slicing gives no objects again."""
    none = Instances.empty((8, 9))

    assert len(none) == 0
    assert none.boxes.shape == (0, 4)
    assert (none.boxes.dtype, none.labels.dtype) == (np.float32, np.int32)
    assert none.scores is not None
    assert none.scores.dtype == np.float32
    assert none.masks is not None
    assert none.masks.size == (8, 9)
    assert len(none[none.scores >= 0.5]) == 0
    assert len(none[:]) == 0


@pytest.mark.parametrize(("index", "rows"), INDICES)
def test_slicing_takes_every_field(index: Any, rows: list[int]) -> None:
    """All fields are cut alike, as numpy cuts rows."""
    whole = four()
    part = whole[index]

    assert len(part) == len(rows)
    assert part.image_size == whole.image_size
    for name in ("boxes", "labels", "scores", "keypoints", "track_ids"):
        assert np.array_equal(getattr(part, name), getattr(whole, name)[rows]), name
    assert part.masks is not None
    assert whole.masks is not None
    for i, row in enumerate(rows):
        assert np.array_equal(part.masks.full(i), whole.masks.full(row))


@pytest.mark.parametrize(("index", "rows"), INDICES)
def test_slicing_keeps_absent_fields_absent(index: Any, rows: list[int]) -> None:
    """What was None stays None."""
    part = four(optional=False)[index]

    assert len(part) == len(rows)
    assert (part.scores, part.masks, part.keypoints, part.track_ids) == (None,) * 4


@pytest.mark.parametrize("index", [4, -5, np.ones(3, bool)], ids=["4", "-5", "short bool"])
def test_slicing_out_of_range(index: Any) -> None:
    """An index that is not there is an IndexError."""
    with pytest.raises(IndexError):
        four()[index]


def test_filter_by_score() -> None:
    """The use it is made for."""
    whole = four()
    assert whole.scores is not None

    assert whole[whole.scores >= 0.5].labels.tolist() == [5, 7]


def test_frozen() -> None:
    """Fields cannot be set; a changed copy is another object."""
    with pytest.raises(AttributeError):
        four().boxes = np.zeros((0, 4), np.float32)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"boxes": np.zeros((4, 5), np.float32)}, r"\(N, 4\)", id="boxes of five"),
        pytest.param({"boxes": np.zeros(4, np.float32)}, r"\(N, 4\)", id="flat boxes"),
        pytest.param({"labels": np.zeros(3, np.int32)}, "labels: expected 4", id="labels"),
        pytest.param({"scores": np.zeros(5, np.float32)}, "scores: expected 4", id="scores"),
        pytest.param({"masks": Masks.empty((8, 9))}, "masks: expected 4.*found 0", id="masks"),
        pytest.param({"keypoints": np.zeros((1, 2, 3))}, "keypoints: expected 4", id="keypoints"),
        pytest.param({"track_ids": np.zeros(0, np.int64)}, "track_ids: expected 4", id="tracks"),
        pytest.param({"image_size": (9, 8)}, r"masks of size \(8, 9\)", id="another picture"),
    ],
)
def test_rows_that_do_not_fit(change: dict[str, Any], message: str) -> None:
    """Fields of different lengths, or of another picture, are refused by name."""
    with pytest.raises(ValueError, match=message):
        Instances(**{**vars(four()), **change})
