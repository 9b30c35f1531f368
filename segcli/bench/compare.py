"""Detections of two programs on the same picture: are they equal outputs, and if not, how far apart.

Equal outputs (two fp32 paths): the same detections and labels whatever their order, boxes within 0.01 px, scores
within 2e-4, masks with IoU ≥ 0.999 or at most 10 pixels apart. One detection per side and picture may lack its partner
where a score that rounds otherwise explains it: within 2e-4 of the threshold, or of the last that the other side kept
when that side is full.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from segcli.masks import Masks

BOX_PX, SCORE = 1e-2, 2e-4
MASK_IOU, MASK_PX = 0.999, 10
PAIR_IOU = 0.5  # of two boxes that are taken for the same object
STRONG = 0.5  # score from which on a detection must be found again, whatever the precision

_ADDED = (
    "pairs", "moved", "masks_off", "missing", "extra", "excused",
    "expected", "strong", "strong_found", "mask_iou_sum",
)  # fmt: skip
_LARGEST = ("box_px", "score", "mask_px")


@dataclass(frozen=True, eq=False)
class Found:
    """N detections of one picture.

    Attributes:
        classes: object (N,), category ids, numbers or text.
        boxes: float64 (N, 4), xyxy in pixels of the original picture.
        scores: float64 (N,).
        masks: of the original picture.
    """

    classes: NDArray[np.object_]
    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    masks: Masks

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class Cut:
    """Where both sides stop: the score threshold and the most detections per picture."""

    score: float
    max_detections: int


@dataclass(frozen=True)
class Comparison:
    """How far one side is from the reference, over all pictures so far.

    Attributes:
        pairs: detections that both sides have (same class, boxes with IoU ≥ 0.5).
        moved: pairs whose box or score differs by more than is allowed.
        masks_off: pairs, not moved, whose masks differ by more than is allowed.
        missing: detections of the reference without a partner and without an excuse.
        extra: the same the other way round.
        excused: detections without a partner that the threshold or the limit explains.
        box_px: largest difference of a corner over all pairs, pixels.
        score: largest difference of a score.
        mask_px: most pixels in which two masks differ.
        mask_iou: smallest IoU of two masks; 1 without pairs.
        expected: detections of the reference.
        strong: those with a score of at least 0.5.
        strong_found: strong ones that have a partner.
        mask_iou_sum: of the masks of those.
        first: the first thing that is not equal, in words; empty where there is none.
    """

    pairs: int = 0
    moved: int = 0
    masks_off: int = 0
    missing: int = 0
    extra: int = 0
    excused: int = 0
    box_px: float = 0.0
    score: float = 0.0
    mask_px: int = 0
    mask_iou: float = 1.0
    expected: int = 0
    strong: int = 0
    strong_found: int = 0
    mask_iou_sum: float = 0.0
    first: str = ""

    @property
    def equal(self) -> bool:
        """Whether these are equal outputs."""
        return not (self.moved or self.masks_off or self.missing or self.extra)

    @property
    def recall(self) -> float | None:
        """Share of the reference's strong detections that were found; None where there are none."""
        return self.strong_found / self.strong if self.strong else None

    @property
    def mean_mask_iou(self) -> float | None:
        """Mean IoU of the masks of those; None where there are none."""
        return self.mask_iou_sum / self.strong_found if self.strong_found else None

    def __add__(self, other: Comparison) -> Comparison:
        sums = {name: getattr(self, name) + getattr(other, name) for name in _ADDED}
        largest = {name: max(getattr(self, name), getattr(other, name)) for name in _LARGEST}
        smallest = min(self.mask_iou, other.mask_iou)
        return Comparison(**sums, **largest, mask_iou=smallest, first=self.first or other.first)


def compare(reference: Found, ours: Found, cut: Cut, picture: str = "") -> Comparison:
    """Compare the detections of one picture.

    Args:
        reference: what is right.
        ours: what is looked at.
        cut: the limits that both ran with.
        picture: its name, for `Comparison.first`.
    """
    near = _explained(reference, ours, cut), _explained(ours, reference, cut)
    pairs = _Pairs.find(reference, ours)
    # two different objects at the threshold that only happen to overlap
    chance = pairs.moved & near[0][pairs.rows[:, 0]] & near[1][pairs.rows[:, 1]]
    pairs = pairs.select(~chance)
    missing, excused = _lonely(pairs.rows[:, 0], near[0])
    extra, excused_too = _lonely(pairs.rows[:, 1], near[1])
    strong = reference.scores[pairs.rows[:, 0]] >= STRONG
    result = Comparison(
        pairs=len(pairs.rows),
        moved=int(pairs.moved.sum()),
        masks_off=int(pairs.masks_off.sum()),
        missing=missing,
        extra=extra,
        excused=excused + excused_too,
        box_px=float(pairs.box_px.max(initial=0)),
        score=float(pairs.score.max(initial=0)),
        mask_px=int(pairs.mask_px.max(initial=0)),
        mask_iou=float(pairs.mask_iou.min(initial=1)),
        expected=len(reference),
        strong=int((reference.scores >= STRONG).sum()),
        strong_found=int(strong.sum()),
        mask_iou_sum=float(pairs.mask_iou[strong].sum()),
    )
    return replace(result, first=_first(result, picture))


@dataclass(frozen=True, eq=False)
class _Pairs:
    """P detections that both sides have.

    Attributes:
        rows: int64 (P, 2), of the reference and of ours.
        box_px: float64 (P,), largest difference of a corner.
        score: float64 (P,), difference.
        mask_px: int64 (P,), pixels in one mask only.
        mask_iou: float64 (P,).
    """

    rows: NDArray[np.int64]
    box_px: NDArray[np.float64]
    score: NDArray[np.float64]
    mask_px: NDArray[np.int64]
    mask_iou: NDArray[np.float64]

    @classmethod
    def find(cls, reference: Found, ours: Found) -> _Pairs:
        """One to one, the best overlaps first."""
        rows = _pair(reference, ours)
        a, b = rows.T
        pixels = [_mask_difference(reference.masks, i, ours.masks, j) for i, j in rows.tolist()]
        table = np.array(pixels, np.float64).reshape(-1, 2)
        return cls(
            rows=rows,
            box_px=np.abs(reference.boxes[a] - ours.boxes[b]).max(axis=1, initial=0),
            score=np.abs(reference.scores[a] - ours.scores[b]),
            mask_px=table[:, 0].astype(np.int64),
            mask_iou=table[:, 1],
        )

    @property
    def moved(self) -> NDArray[np.bool_]:
        """Whether, bool (P,), box or score differs by more than is allowed."""
        return (self.box_px > BOX_PX) | (self.score > SCORE)

    @property
    def masks_off(self) -> NDArray[np.bool_]:
        """Whether, bool (P,), the box did not move, but the mask differs by more than is allowed."""
        return ~self.moved & (self.mask_iou < MASK_IOU) & (self.mask_px > MASK_PX)

    def select(self, kept: NDArray[np.bool_]) -> _Pairs:
        """Some of them."""
        return _Pairs(
            self.rows[kept],
            self.box_px[kept],
            self.score[kept],
            self.mask_px[kept],
            self.mask_iou[kept],
        )


def _pair(reference: Found, ours: Found) -> NDArray[np.int64]:
    """int64 (P, 2): same class and boxes with IoU ≥ 0.5; best overlap first, of equal ones the closest scores."""
    iou = _box_iou(reference.boxes, ours.boxes)
    iou[reference.classes[:, None] != ours.classes[None]] = 0
    a, b = np.nonzero(iou >= PAIR_IOU)
    order = np.lexsort((np.abs(reference.scores[a] - ours.scores[b]), -iou[a, b]))
    pairs: list[tuple[int, int]] = []
    taken: tuple[set[int], set[int]] = set(), set()
    for i, j in zip(a[order].tolist(), b[order].tolist(), strict=True):
        if i not in taken[0] and j not in taken[1]:
            pairs.append((i, j))
            taken[0].add(i)
            taken[1].add(j)
    return np.array(pairs, np.int64).reshape(-1, 2)


def _box_iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 4) and (M, 4) xyxy to (N, M); boxes without area overlap nothing."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inside = np.clip(high - low, 0, None).prod(axis=2)
    areas = [np.clip(x[:, 2:] - x[:, :2], 0, None).prod(axis=1) for x in (a, b)]
    union = areas[0][:, None] + areas[1][None] - inside
    iou: NDArray[np.float64] = inside / np.maximum(union, 1e-12)
    return iou


def _mask_difference(a: Masks, i: int, b: Masks, j: int) -> tuple[int, float]:
    """Pixels in one of two masks only, and their IoU (1 of two empty ones)."""
    from pycocotools import mask

    both = [a.coco(i), b.coco(j)]
    areas = [int(mask.area(rle)) for rle in both]
    inside = int(mask.area(mask.merge(both, intersect=True)))
    union = sum(areas) - inside
    return union - inside, inside / union if union else 1.0


def _explained(side: Found, other: Found, cut: Cut) -> NDArray[np.bool_]:
    """Whether, bool (N,), a score that rounds otherwise explains why `other` lacks this detection."""
    near = np.abs(side.scores - cut.score) <= SCORE
    if len(other) >= cut.max_detections:
        near |= np.abs(side.scores - other.scores.min(initial=np.inf)) <= SCORE
    return near


def _lonely(paired: NDArray[np.int64], near: NDArray[np.bool_]) -> tuple[int, int]:
    """How many of one side have no partner: without an excuse, and excused (one at most)."""
    alone = np.ones(len(near), bool)
    alone[paired] = False
    excused = min(int((alone & near).sum()), 1)
    return int(alone.sum()) - excused, excused


def _first(found: Comparison, picture: str) -> str:
    """What is not equal on a picture, in words."""
    parts = [
        (found.missing, f"{found.missing} detections missing"),
        (found.extra, f"{found.extra} detections too many"),
        (
            found.moved,
            f"{found.moved} boxes or scores off (by up to {found.box_px:.2g} px, {found.score:.2g})",
        ),
        (
            found.masks_off,
            f"{found.masks_off} masks off (up to {found.mask_px} px, IoU {found.mask_iou:.4f})",
        ),
    ]
    words = ", ".join(text for count, text in parts if count)
    return f"{picture}: {words}" if words else ""
