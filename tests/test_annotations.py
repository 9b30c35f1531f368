"""Ground truth in its own form, rasterised by pycocotools' rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from segcli.annotations import Annotation, Dataset, Picture, Problem
from segcli.categories import Categories
from segcli.masks import Masks

SIZE = (20, 30)
SQUARE = [2.0, 3.0, 10.0, 3.0, 10.0, 9.0, 2.0, 9.0]
TRIANGLE = [15.5, 2.25, 28.75, 18.5, 12.0, 17.0]
OVERLAP = [5.0, 5.0, 14.0, 5.0, 14.0, 12.0, 5.0, 12.0]


def polygons(*parts: list[float]) -> Annotation:
    """An annotation of polygons."""
    points = tuple(np.array(p, np.float64).reshape(-1, 2) for p in parts)
    return Annotation(1, 0, np.array([2.0, 3, 8, 6]), 48.0, polygons=points)


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([SQUARE], id="one"),
        pytest.param([SQUARE, TRIANGLE], id="two parts"),
        pytest.param([SQUARE, OVERLAP], id="overlapping parts"),
        pytest.param([[-5.0, -5, 40, -5, 40, 40, -5, 40]], id="beyond the picture"),
        pytest.param([[100.0, 100, 110, 100, 110, 110]], id="outside the picture"),
        pytest.param([[3.0, 3, 3, 3, 3, 3]], id="a point"),
    ],
)
def test_polygons_become_pycocotools_masks(parts: list[list[float]]) -> None:
    """The mask is the union of the parts as pycocotools fills them."""
    truth = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(parts, *SIZE))).astype(bool)
    masks = polygons(*parts).mask(SIZE)

    assert len(masks) == 1
    assert np.array_equal(masks.full(0), truth)


def test_polygons_are_given_back_as_they_were() -> None:
    """COCO's field holds the same numbers, fractions too, part by part."""
    assert polygons(SQUARE, TRIANGLE).coco_segmentation() == [SQUARE, TRIANGLE]


def test_rle_stays_rle() -> None:
    """An RLE annotation gives its own mask, hole and all, and COCO's compressed form."""
    dense = np.zeros(SIZE, bool)
    dense[4:12, 5:15] = True
    dense[6:8, 7:9] = False
    rle = Masks.from_dense(dense[None])
    annotation = Annotation("a7", 0, np.zeros(4), 76.0, iscrowd=True, rle=rle)

    assert annotation.mask(SIZE) is rle
    entry: dict[str, Any] = annotation.coco_segmentation()
    assert np.array_equal(coco_mask.decode(entry).astype(bool), dense)


def test_records_are_frozen_and_start_empty() -> None:
    """A picture has no annotations and a dataset no problems unless given; nothing can be set."""
    picture = Picture(1, "a.jpg", None, SIZE)
    dataset = Dataset(Path("a.json"), None, (picture,), Categories.from_names(["x"]))

    assert (picture.annotations, picture.raw_pixels, dataset.problems) == ((), False, ())
    assert Problem("kind", "where", "found", "remedy").left_out
    with pytest.raises(AttributeError):
        picture.size = (1, 1)  # type: ignore[misc]
