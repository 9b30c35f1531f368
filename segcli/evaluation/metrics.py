"""What an evaluation says: the twelve numbers of COCO, by class, and the curves behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

# pycocotools' grid: IoU thresholds .50, .55 … .95
IOU_50, IOU_75 = 0, 5
AREAS = {"all": 0, "s": 1, "m": 2, "l": 3}


@dataclass(frozen=True, eq=False)
class Curves:
    """What pycocotools accumulates; −1 where there is no truth.

    T = 10 IoU thresholds, R = 101 recalls, K classes, A = 4 areas (all, small, medium, large), M = detection limits.

    Attributes:
        precision: float64 (T, R, K, A, M).
        recall: float64 (T, K, A, M).
        scores: float64 (T, R, K, A, M), the score at which each recall is reached.
        limits: the M detection limits per picture and class, rising.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    scores: NDArray[np.float64]
    limits: tuple[int, ...]

    def summary(self) -> dict[str, float | None]:
        """The numbers that pycocotools prints, in its order; every AP at the last limit.

        With limits other than (1, 10, 100) the AR are named after what they are: `AR200`.
        """
        precision = self.precision[..., -1]  # (T, R, K, A)
        recall = self.recall[..., -1]  # (T, K, A)
        return {
            "AP": _mean(precision[..., AREAS["all"]]),
            "AP50": _mean(precision[IOU_50, ..., AREAS["all"]]),
            "AP75": _mean(precision[IOU_75, ..., AREAS["all"]]),
            **{f"AP{a}": _mean(precision[..., AREAS[a]]) for a in "sml"},
            **{
                f"AR{limit}": _mean(self.recall[..., AREAS["all"], m])
                for m, limit in enumerate(self.limits)
            },
            **{f"AR{a}": _mean(recall[..., AREAS[a]]) for a in "sml"},
        }

    def class_ap(self, label: int) -> float | None:
        """AP of one class."""
        return _mean(self.precision[:, :, label, AREAS["all"], -1])


@dataclass(frozen=True)
class ClassMetrics:
    """One class.

    Attributes:
        name: of the class.
        id: in the truth's file.
        box_ap: 0..1; None where the truth has no such object.
        mask_ap: 0..1; None also where the predictions have no masks.
        truth: objects annotated, crowd regions apart.
        detections: objects predicted.
    """

    name: str
    id: int | str
    box_ap: float | None
    mask_ap: float | None
    truth: int
    detections: int

    def to_json(self) -> dict[str, Any]:
        """As an entry of `per_class`."""
        return {
            "id": self.id,
            "name": self.name,
            "box": {"AP": self.box_ap},
            "mask": {"AP": self.mask_ap},
            "truth": self.truth,
            "detections": self.detections,
        }


@dataclass(frozen=True, eq=False)
class Metrics:
    """Result of an evaluation; fractions 0..1, None where the truth has nothing to measure.

    Attributes:
        box: name (`AP`, `AP50` …) to value.
        mask: likewise; None where the predictions have no masks.
        per_class: in the order of the truth's categories.
        max_dets: detections per picture and class that were counted.
        evaluator: name and version of what computed the curves.
        counts: pictures, objects, and what was dropped.
        box_curves: what `box` is computed from.
        mask_curves: what `mask` is computed from.
    """

    box: dict[str, float | None]
    mask: dict[str, float | None] | None
    per_class: Sequence[ClassMetrics]
    max_dets: int
    evaluator: tuple[str, str]
    counts: dict[str, int]
    box_curves: Curves = field(repr=False)
    mask_curves: Curves | None = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """What `metrics.json` holds."""
        return {
            "box": self.box,
            "mask": self.mask,
            "per_class": [row.to_json() for row in self.per_class],
            "max_dets": self.max_dets,
            "evaluator": dict(zip(("name", "version"), self.evaluator, strict=True)),
            "counts": self.counts,
        }


def _mean(values: NDArray[np.float64]) -> float | None:
    """Mean of what is there, −1 being what is not; summed in pycocotools' order, so equal to the last bit."""
    there = values[values > -1]
    return float(np.mean(there)) if there.size else None
