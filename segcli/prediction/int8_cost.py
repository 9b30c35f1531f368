"""What int8 costs, from a sample: the objects that fp32 finds, looked for again in 8 bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from segcli.instances import Instances
from segcli.models.inference import TrunkEngine

SAMPLE = 4  # pictures
SURE = 0.5  # score from which an object of fp32 counts
SAME = 0.5  # IoU from which two objects are one

Picture = TypeVar("Picture")


@dataclass(frozen=True)
class Int8Cost:
    """How objects of score ≥ 0.5 fare.

    Attributes:
        pictures: of the sample.
        objects: that fp32 found.
        ious: of those that int8 found again.
        changes: of their scores, int8 − fp32.
        kind: `mask` or `box`: what the IoU is of.
    """

    pictures: int
    objects: int
    ious: tuple[float, ...]
    changes: tuple[float, ...]
    kind: str

    def line(self) -> str:
        """For the user, one line."""
        start = f"int8 against fp32 on {self.pictures} pictures: "
        if self.objects == 0:
            return f"{start}fp32 finds no object of score ≥ {SURE} on them, so nothing can be said about its cost"
        found = f"{len(self.ious)} of {self.objects} objects of score ≥ {SURE} found again"
        share = f"({100 * len(self.ious) / self.objects:.1f} %, {self.kind} IoU ≥ {SAME})"
        if not self.ious:
            return f"{start}{found} {share}"
        means = f"mean IoU {np.mean(self.ious):.3f}, scores {np.mean(self.changes):+.3f} on average"
        return f"{start}{found} {share}, {means}"


def cost_of_int8(
    exact: TrunkEngine,
    int8: TrunkEngine,
    pictures: Sequence[Picture],
    detect: Callable[[TrunkEngine, Picture], Instances],
) -> Int8Cost:
    """Run both engines on up to 4 pictures and compare what is found.

    Args:
        exact: fp32.
        int8: the same trunk in 8 bits.
        pictures: in any form that `detect` takes.
        detect: everything around the trunk; gives the objects of a picture, with scores.
    """
    ious: list[float] = []
    changes: list[float] = []
    objects, kind = 0, "mask"
    for picture in pictures[:SAMPLE]:
        sought, found = detect(exact, picture), detect(int8, picture)
        sought = sought[_scores(sought) >= SURE]
        objects += len(sought)
        kind = "box" if sought.masks is None or found.masks is None else kind
        for i, j, iou in _pairs(sought, found):
            ious.append(iou)
            changes.append(float(_scores(found)[j]) - float(_scores(sought)[i]))
    return Int8Cost(len(pictures[:SAMPLE]), objects, tuple(ious), tuple(changes), kind)


def _pairs(sought: Instances, found: Instances) -> list[tuple[int, int, float]]:
    """(row, row, IoU) of objects of one class: the best score chooses first, each object once."""
    overlap = _overlaps(sought, found)
    overlap[sought.labels[:, None] != found.labels[None, :]] = 0.0
    pairs = []
    for i in np.argsort(-_scores(sought), kind="stable") if overlap.size else ():
        j = int(np.argmax(overlap[i]))
        if overlap[i, j] >= SAME:
            pairs.append((int(i), j, float(overlap[i, j])))
            overlap[:, j] = 0.0
    return pairs


def _overlaps(a: Instances, b: Instances) -> NDArray[np.float64]:
    """IoU float64 (N, M), of masks where both have them, else of boxes."""
    from pycocotools import mask as coco

    if len(a) == 0 or len(b) == 0:
        return np.zeros((len(a), len(b)))
    sides: list[Any]
    if a.masks is not None and b.masks is not None:
        sides = [[m.coco(i) for i in range(len(m))] for m in (a.masks, b.masks)]
    else:
        sides = [np.hstack([x.boxes[:, :2], x.boxes[:, 2:] - x.boxes[:, :2]]) for x in (a, b)]
        sides = [side.astype(np.float64) for side in sides]
    return np.asarray(coco.iou(*sides, [0] * len(b)), np.float64)


def _scores(instances: Instances) -> NDArray[np.float32]:
    if instances.scores is None:
        raise ValueError("expected predictions, which have scores")
    return instances.scores
