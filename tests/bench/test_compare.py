"""Equal outputs, on detections made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from segcli.bench.compare import Comparison, Cut, Found, compare
from segcli.masks import Masks

SIZE = (100, 120)
CUT = Cut(score=0.05, max_detections=4)
FULL = Cut(score=0.05, max_detections=3)
BOXES = ((10.0, 10.0, 50.0, 60.0), (60.0, 20.0, 110.0, 90.0), (5.0, 70.0, 45.0, 95.0))


def found(
    classes: Sequence[int] = (1, 2, 1),
    scores: Sequence[float] = (0.9, 0.6, 0.3),
    boxes: Sequence[Sequence[float]] = BOXES,
) -> Found:
    """Detections whose masks fill their boxes."""
    masks = np.zeros((len(boxes), *SIZE), bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[int(y0) : int(y1), int(x0) : int(x1)] = True
    return Found(
        np.array(classes, object),
        np.array(boxes, np.float64).reshape(-1, 4),
        np.array(scores, np.float64),
        Masks.from_dense(masks),
    )


def some(all_of: Found, rows: Sequence[int]) -> Found:
    """Detections picked, in the order given."""
    index = np.array(rows, np.int64)
    return Found(
        all_of.classes[index], all_of.boxes[index], all_of.scores[index], all_of.masks[index]
    )


def with_pixels(all_of: Found, row: int, count: int) -> Found:
    """The same with `count` pixels of one mask taken away."""
    masks = [all_of.masks.full(i) for i in range(len(all_of))]
    y, x = np.nonzero(masks[row])
    masks[row][y[:count], x[:count]] = False
    return replace(all_of, masks=Masks.from_dense(np.array(masks)))


NOTHING = found((), (), ())


def test_nothing_equals_nothing() -> None:
    """Two pictures without detections are equal, and say that nothing was looked at."""
    result = compare(NOTHING, NOTHING, CUT)

    assert result == Comparison()
    assert result.equal
    assert (result.recall, result.mean_mask_iou) == (None, None)


def test_the_same_is_equal() -> None:
    """Every pair is exact."""
    result = compare(found(), found(), CUT, "a.jpg")

    assert result.equal
    assert (result.pairs, result.expected, result.first) == (3, 3, "")
    assert (result.box_px, result.score, result.mask_px, result.mask_iou) == (0, 0, 0, 1)
    assert (result.strong, result.recall, result.mean_mask_iou) == (2, 1, 1)


@pytest.mark.parametrize(
    "ours",
    [
        pytest.param(some(found(), [2, 0, 1]), id="another order"),
        pytest.param(found(boxes=np.array(BOXES) + 0.009), id="boxes a hundredth off"),
        pytest.param(found(scores=(0.90019, 0.59981, 0.3)), id="scores within 2e-4"),
        pytest.param(with_pixels(found(), 1, 10), id="ten pixels of a mask"),
    ],
)
def test_equal_outputs(ours: Found) -> None:
    """Order and small differences do not matter."""
    assert compare(found(), ours, CUT).equal


def test_a_large_mask_may_differ_by_a_thousandth() -> None:
    """More than ten pixels are equal where the IoU is at least 0.999."""
    large = found((1,), (0.9,), ((0, 0, 120, 100),))

    assert compare(large, with_pixels(large, 0, 12), CUT).equal
    assert not compare(large, with_pixels(large, 0, 13), CUT).equal


@pytest.mark.parametrize(
    ("ours", "words"),
    [
        pytest.param(
            found(classes=(1, 3, 1)),
            "a.jpg: 1 detections missing, 1 detections too many",
            id="another class",
        ),
        pytest.param(
            found(boxes=np.array(BOXES) + np.array([[0], [0.011], [0]])),
            "a.jpg: 1 boxes or scores off (by up to 0.011 px, 0)",
            id="a box moved",
        ),
        pytest.param(
            found(scores=(0.9, 0.6003, 0.3)),
            "a.jpg: 1 boxes or scores off (by up to 0 px, 0.0003)",
            id="a score differs",
        ),
        pytest.param(
            with_pixels(found(), 1, 11), "a.jpg: 1 masks off (up to 11 px, IoU 0.9969)", id="mask"
        ),
        pytest.param(some(found(), [0, 2]), "a.jpg: 1 detections missing", id="one is missing"),
        pytest.param(NOTHING, "a.jpg: 3 detections missing", id="all are missing"),
    ],
)
def test_what_differs_is_named(ours: Found, words: str) -> None:
    """Each kind of difference breaks equality, and the first picture of it is described."""
    result = compare(found(), ours, CUT, "a.jpg")

    assert not result.equal
    assert result.first == words


@pytest.mark.parametrize(
    ("score", "rows", "cut", "equal"),
    [
        pytest.param(0.0501, [0, 1], CUT, True, id="at the threshold"),
        pytest.param(0.0503, [0, 1], CUT, False, id="above the threshold"),
        pytest.param(0.0501, [0], CUT, False, id="and another one"),
        pytest.param(0.3, [0, 1], FULL, False, id="not full"),
    ],
)
def test_one_without_a_partner(score: float, rows: list[int], cut: Cut, equal: bool) -> None:
    """The threshold excuses one detection, and only one whose score is near it; either side may have it."""
    theirs = found(scores=(0.9, 0.6, score))
    ours = some(theirs, rows)

    assert compare(theirs, ours, cut).equal is equal
    assert compare(ours, theirs, cut).equal is equal


def test_two_at_the_threshold_are_one_too_many() -> None:
    """One detection per side may be excused, not two."""
    theirs = found(scores=(0.9, 0.0501, 0.0501))

    result = compare(theirs, some(theirs, [0]), CUT)
    assert (result.missing, result.excused, result.equal) == (1, 1, False)


def test_the_last_place_of_a_full_picture() -> None:
    """Where both sides are full, the last place may be another's whose score is all but the same."""
    last = (70.0, 1.0, 100.0, 15.0)
    theirs = found()

    close = found((1, 2, 3), (0.9, 0.6, 0.30015), (*BOXES[:2], last))
    assert compare(theirs, close, FULL).equal
    assert compare(theirs, close, FULL).excused == 2
    assert not compare(theirs, close, CUT).equal
    far = found((1, 2, 3), (0.9, 0.6, 0.3003), (*BOXES[:2], last))
    assert not compare(theirs, far, FULL).equal


def test_two_objects_at_the_threshold_that_overlap_by_chance() -> None:
    """Each side's own object at the threshold is excused even where they overlap."""
    moved = (*BOXES[:2], (5.0, 70.0, 40.0, 95.0))
    theirs, ours = found(scores=(0.9, 0.6, 0.0501)), found(scores=(0.9, 0.6, 0.05005), boxes=moved)

    result = compare(theirs, ours, CUT)
    assert (result.equal, result.excused, result.box_px) == (True, 2, 0)


def test_overlapping_boxes_find_their_own_partner() -> None:
    """The best overlap is taken first, whatever the order and the scores."""
    boxes = ((0.0, 0.0, 50.0, 50.0), (0.0, 0.0, 50.0, 40.0))
    theirs = found((1, 1), (0.8, 0.7), boxes)

    assert compare(theirs, some(theirs, [1, 0]), CUT).equal


def test_in_another_precision() -> None:
    """Recall counts strong detections found again at IoU ≥ 0.5; the masks' IoU is their mean."""
    boxes = ((10.0, 10.0, 50.0, 50.0), (60.0, 20.0, 165.0, 90.0), BOXES[2])
    result = compare(found(), found(boxes=boxes, scores=(0.8, 0.7, 0.2)), CUT)

    assert (result.strong, result.strong_found, result.pairs) == (2, 1, 2)
    assert (result.recall, result.mean_mask_iou) == (0.5, 0.8)
    assert (result.box_px, result.mask_px) == (10, 400)
    assert result.score == pytest.approx(0.1)


def test_pictures_add_up() -> None:
    """Counts are added, the largest difference stays, and the first picture that differs is named."""
    good = compare(found(), found(), CUT, "a.jpg")
    bad = compare(found(), some(found(), [0, 2]), CUT, "b.jpg")
    worse = compare(found(), with_pixels(found(), 0, 400), CUT, "c.jpg")
    total = good + bad + worse

    assert (total.pairs, total.expected, total.missing, total.masks_off) == (8, 9, 1, 1)
    assert (total.mask_px, total.mask_iou, total.equal) == (400, 0.8, False)
    assert total.first == "b.jpg: 1 detections missing"
