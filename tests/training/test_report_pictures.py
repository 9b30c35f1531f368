"""Which pictures a report shows, and what it says of them."""

from __future__ import annotations

import io
import re
from base64 import b64decode
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from segcli.annotations import Annotation, Picture
from segcli.categories import Categories
from segcli.instances import Instances
from segcli.masks import Masks
from segcli.training.report_pictures import Judged, gallery, judge

SIZE = (40, 60)
Box = tuple[int, int, int, int]


def _masks(boxes: list[Box]) -> Masks:
    dense = np.zeros((len(boxes), *SIZE), bool)
    for mask, (x0, y0, x1, y1) in zip(dense, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    return Masks.from_dense(dense) if boxes else Masks.empty(SIZE)


def _picture(
    *boxes: Box, crowd: Box | None = None, name: str = "a.png", path: Path | None = None
) -> Picture:
    rows = [(box, False) for box in boxes] + ([] if crowd is None else [(crowd, True)])
    annotations = tuple(
        Annotation(i, 0, np.zeros(4), 1.0, iscrowd, rle=_masks([box]))
        for i, (box, iscrowd) in enumerate(rows)
    )
    return Picture(1, name, path, SIZE, annotations)


def _found(*boxes: Box, scores: list[float] | None = None, label: int = 0) -> Instances:
    masks = _masks(list(boxes))
    values: NDArray[np.float32] = np.array(scores or [0.9] * len(boxes), np.float32)
    labels = np.full(len(boxes), label, np.int32)
    return Instances(SIZE, masks.boxes(), labels, values, masks)


A, B, C = (0, 0, 10, 10), (20, 0, 30, 10), (40, 20, 55, 35)


@pytest.mark.parametrize(
    ("picture", "found", "f1", "missed", "extra"),
    [
        (_picture(), _found(), 1.0, 0, 0),
        (_picture(), _found(A), 0.0, 0, 1),
        (_picture(A), _found(), 0.0, 1, 0),
        (_picture(A, B), _found(B, A), 1.0, 0, 0),
        (_picture(A, B), _found(A, C), 0.5, 1, 1),
        (_picture(A), _found(A, A), 2 / 3, 0, 1),
        (_picture(A), _found(A, label=1), 0.0, 1, 1),
        (_picture(A), _found((0, 0, 10, 4)), 0.0, 1, 1),
        (_picture(A), _found((0, 0, 10, 6)), 1.0, 0, 0),
        (_picture(A, B), _found(A, B, scores=[0.9, 0.49]), 2 / 3, 1, 0),
        (_picture(A, crowd=C), _found(A, (42, 22, 48, 28)), 1.0, 0, 0),
    ],
    ids=[
        "nothing at all", "only found", "only there", "all", "one of two", "twice", "another class",
        "IoU 0.4", "IoU 0.6", "below the score", "in a crowd region",
    ],
)  # fmt: skip
def test_judging(picture: Picture, found: Instances, f1: float, missed: int, extra: int) -> None:
    """F1 of masks at IoU .5, what was missed, and what was made up."""
    judged = judge(picture, found)

    assert judged.f1 == pytest.approx(f1)
    assert (~judged.truth_matched).sum() == missed
    assert (~judged.found_matched).sum() == extra


def test_the_best_score_matches_first_and_takes_the_best_overlap() -> None:
    """Each detection gets the free object that it covers best; the mean IoU is over matches."""
    judged = judge(_picture(A), _found((0, 0, 10, 8), A, scores=[0.9, 0.6]))

    assert judged.found_matched.tolist() == [True, False]
    assert judged.overlap == pytest.approx(0.8)


def _judged(tmp_path: Path, number: int, objects: int) -> Judged:
    """A picture of three objects of which so many were found."""
    path = tmp_path / f"{number}.png"
    Image.fromarray(np.full((*SIZE, 3), 90, np.uint8)).save(path)
    picture = _picture(A, B, C, name=f"<i>{number}</i>.png", path=path)
    return judge(picture, _found(*(A, B, C)[:objects]))


def test_gallery_shows_the_worst_and_the_best_once(tmp_path: Path) -> None:
    """Ranked by F1, no picture twice, both sides embedded, names escaped."""
    judged = [_judged(tmp_path, n, found) for n, found in enumerate((3, 0, 2))]
    text = gallery(judged, Categories.from_names(["cell"]), 7)

    assert "<i>" not in text
    assert re.findall(r"<code>&lt;i&gt;(\d)&lt;/i&gt;", text) == ["1", "2", "0"]
    assert text.index("Worst") < text.index("Best</h3>")
    assert "Of 3 pictures spread over the 7" in text
    images = [
        np.asarray(Image.open(io.BytesIO(b64decode(data))))
        for data in re.findall(r"data:image/jpeg;base64,([^\"]*)", text)
    ]
    assert [i.shape for i in images] == [(307, 460, 3)] * 6
    red = images[0].astype(int)  # the worst picture's truth: three missed objects in red boxes
    assert ((red[..., 0] > 180) & (red[..., 1] < 60)).sum() > 300


def test_gallery_of_several_classes_names_them(tmp_path: Path) -> None:
    """What was missed is counted by class."""
    text = gallery([_judged(tmp_path, 0, 1)], Categories.from_names(["<b>nut", "bolt"]), 1)

    assert "missed: 2 &lt;b&gt;nut" in text


def test_names_that_utf_8_cannot_hold(tmp_path: Path) -> None:
    """Undecodable bytes of a file's name are shown, as in the rest of the report."""
    judged = _judged(tmp_path, 0, 1)
    judged = replace(judged, picture=replace(judged.picture, file_name="a\udcff.png"))
    text = gallery([judged], Categories.from_names(["nut", "bolt"]), 1)

    assert "<code>a\\udcff.png</code>" in text
    assert text.encode("utf-8")


def test_gallery_without_anything_to_show() -> None:
    """Pictures without objects and without detections say nothing about a model."""
    text = gallery([judge(_picture(), _found())], Categories.from_names(["cell"]), 1)

    assert "could be drawn" in text
    assert "<img" not in text
