"""What int8 costs, said from a sample."""

from __future__ import annotations

import numpy as np
import pytest
from torch import Tensor

from segcli.instances import Instances
from segcli.masks import Masks
from segcli.models.inference import TrunkEngine, TrunkOutput
from segcli.prediction.int8_cost import Int8Cost, cost_of_int8

SIZE = (20, 20)


def exact(images: Tensor) -> TrunkOutput:
    raise AssertionError("engines are only handed on")


def int8(images: Tensor) -> TrunkOutput:
    raise AssertionError("engines are only handed on")


def squares(*rows: tuple[int, int, int, float, int], masks: bool = True) -> Instances:
    """Squares (x, y, side, score, label)."""
    boxes = np.array([(x, y, x + s, y + s) for x, y, s, _, _ in rows], np.float32).reshape(-1, 4)
    crops = [(np.ones((s, s), bool), (x, y)) for x, y, s, _, _ in rows]
    return Instances(
        image_size=SIZE,
        boxes=boxes,
        labels=np.array([r[4] for r in rows], np.int32),
        scores=np.array([r[3] for r in rows], np.float32),
        masks=Masks.from_crops(crops, SIZE) if masks else None,
    )


def cost(sought: Instances, found: Instances, pictures: int = 1) -> Int8Cost:
    def detect(engine: TrunkEngine, picture: int) -> Instances:
        return sought if engine is exact else found

    return cost_of_int8(exact, int8, range(pictures), detect)


NONE = squares()


@pytest.mark.parametrize(
    ("sought", "found", "objects", "ious", "changes"),
    [
        (NONE, NONE, 0, (), ()),
        (NONE, squares((0, 0, 4, 0.9, 0)), 0, (), ()),
        (squares((0, 0, 4, 0.9, 0)), NONE, 1, (), ()),
        (squares((0, 0, 4, 0.4, 0)), squares((0, 0, 4, 0.9, 0)), 0, (), ()),
        (squares((0, 0, 4, 0.9, 0)), squares((0, 0, 4, 0.8, 0)), 1, (1.0,), (-0.1,)),
        (squares((0, 0, 4, 0.9, 0)), squares((0, 0, 4, 0.1, 0)), 1, (1.0,), (-0.8,)),
        (squares((0, 0, 4, 0.9, 0)), squares((0, 0, 4, 0.9, 1)), 1, (), ()),
        (squares((0, 0, 4, 0.9, 0)), squares((2, 0, 4, 0.9, 0)), 1, (), ()),
        (
            squares((0, 0, 4, 0.6, 0), (0, 0, 4, 0.9, 0)),
            squares((0, 0, 4, 0.9, 0)),
            2,
            (1.0,),
            (0.0,),
        ),
    ],
    ids=[
        "nothing anywhere",
        "nothing to find",
        "lost",
        "unsure",
        "found",
        "found with a low score",
        "another class",
        "too far away",
        "each only once, the best first",
    ],
)
def test_cost(
    sought: Instances,
    found: Instances,
    objects: int,
    ious: tuple[float, ...],
    changes: tuple[float, ...],
) -> None:
    """Objects of fp32 are looked for by class and overlap, whatever score int8 gives them."""
    got = cost(sought, found)

    assert (got.objects, got.kind) == (objects, "mask")
    assert got.ious == pytest.approx(ious)
    assert got.changes == pytest.approx(changes, abs=1e-6)


def test_boxes_where_there_are_no_masks() -> None:
    """Models without masks are compared by boxes."""
    one = squares((0, 0, 4, 0.9, 0), masks=False)

    got = cost(one, squares((1, 0, 4, 0.9, 0), masks=False))

    assert (got.kind, got.ious) == ("box", pytest.approx((0.6,)))


def test_at_most_four_pictures() -> None:
    """The sample is small."""
    one = squares((0, 0, 4, 0.9, 0))

    assert (cost(one, one, 9).pictures, cost(one, one, 9).objects) == (4, 4)
    assert cost(one, one, 0).pictures == 0


@pytest.mark.parametrize(
    ("sought", "found", "line"),
    [
        (
            squares((0, 0, 4, 0.9, 0)),
            squares((0, 0, 4, 0.8, 0)),
            "int8 against fp32 on 1 pictures: 1 of 1 objects of score ≥ 0.5 found again (100.0 %, mask IoU ≥ 0.5), "
            "mean IoU 1.000, scores -0.100 on average",
        ),
        (
            squares((0, 0, 4, 0.9, 0)),
            NONE,
            "int8 against fp32 on 1 pictures: 0 of 1 objects of score ≥ 0.5 found again (0.0 %, mask IoU ≥ 0.5)",
        ),
        (
            NONE,
            NONE,
            "int8 against fp32 on 1 pictures: fp32 finds no object of score ≥ 0.5 on them, so nothing can be said "
            "about its cost",
        ),
    ],
)
def test_line(sought: Instances, found: Instances, line: str) -> None:
    """One line for the user, also where there is nothing to compare."""
    assert cost(sought, found).line() == line


def test_annotations_are_no_predictions() -> None:
    """Without scores there is nothing to compare."""
    bare = Instances(SIZE, np.zeros((0, 4), np.float32), np.zeros(0, np.int32))

    with pytest.raises(ValueError, match="which have scores"):
        cost(bare, bare)
