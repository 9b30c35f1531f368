"""Published weights measured again: their AP here beside the AP that their publisher states."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from segcli.config import PredictConfig
from segcli.data.locate import open_dataset
from segcli.errors import ModelError
from segcli.evaluation.metrics import Metrics
from segcli.evaluation.model import evaluate_predictor, whole_truth
from segcli.prediction.loading import open_predictor
from segcli.published import PublishedWeights, find

# the validation part of COCO 2017, on which all three families measure
WHOLE = {"COCO": 5000}
_MAX_DETS = 100
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Compared:
    """One figure.

    Attributes:
        what: `box AP` or `mask AP`.
        published: in points; None = not published.
        measured: in points; None = there is nothing to measure it on.
    """

    what: str
    published: float | None
    measured: float | None

    @property
    def difference(self) -> float | None:
        """Measured less published, points."""
        if self.published is None or self.measured is None:
            return None
        return self.measured - self.published


@dataclass(frozen=True)
class Verification:
    """What `segcli models verify` found.

    Attributes:
        weights: the row that was verified.
        source: the annotation file.
        pictures: how many were measured on.
        failed_pictures: of them, how many could not be read.
        whole: how many the published figures stand for; None = unknown.
        rows: box and mask AP.
        within: largest difference that passes, points.
    """

    weights: PublishedWeights
    source: str
    pictures: int
    failed_pictures: int
    whole: int | None
    rows: tuple[Compared, ...]
    within: float

    @property
    def verdict(self) -> Literal["agrees", "differs", "not judged"]:
        """Judged on the whole set alone: AP of a part of it is another number."""
        apart = [abs(row.difference) for row in self.rows if row.difference is not None]
        if self.pictures != self.whole or self.failed_pictures or not apart:
            return "not judged"
        return "differs" if max(apart) > self.within + _ROUNDING else "agrees"

    def line(self) -> str:
        """The verdict in words."""
        if self.verdict == "not judged":
            whole = f"the {self.whole}" if self.whole else "all pictures"
            failed = f", {self.failed_pictures} of them unreadable" if self.failed_pictures else ""
            return (
                f"measured on {self.pictures} pictures{failed}, published for {whole} of "
                f"{self.weights.dataset}'s validation set: not judged"
            )
        return (
            f"{self.verdict}: AP on all {self.pictures} pictures "
            f"{'is' if self.verdict == 'agrees' else 'is not'} within {self.within:g} points of the published"
        )

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values; AP in points."""
        return {
            "name": self.weights.name,
            "published_by": self.weights.source,
            "dataset": self.source,
            "pictures": self.pictures,
            "failed_pictures": self.failed_pictures,
            "pictures_published_for": self.whole,
            "ap": {
                row.what.split()[0]: {
                    "published": row.published,
                    "measured": row.measured,
                    "difference": row.difference,
                }
                for row in self.rows
            },
            "within": self.within,
            "verdict": self.verdict,
        }


def verify(
    name: str,
    dataset: Path,
    config: PredictConfig,
    *,
    images: Path | None = None,
    limit: int | None = None,
    within: float = 0.2,
    roi_align: str = "auto",
) -> Verification:
    """Evaluate published weights on a dataset.

    Args:
        name: of the weights.
        dataset: annotation file or folder.
        config: how to predict; its model and number of objects are set here.
        images: where the pictures lie.
        limit: only the first pictures of the dataset.
        within: largest difference of AP that passes, points.
        roi_align: which RoIAlign runs.

    Raises:
        UsageError: no such weights or dataset.
        ModelError: segcli cannot run these weights, or they cannot be fetched.
        DataError: nothing in the dataset is usable.
    """
    weights = find(name)
    if weights.reason is not None:
        raise ModelError(f"{name}: segcli cannot run these weights ({weights.reason})")
    truth = whole_truth(open_dataset(dataset, images))
    if limit is not None:
        truth = replace(truth, pictures=truth.pictures[:limit])
    predictor = open_predictor(replace(config, model=name, max_detections=_MAX_DETS), roi_align)
    metrics = evaluate_predictor(predictor, truth, max_dets=_MAX_DETS)
    return compare(weights, metrics, str(truth.source), within=within)


def compare(
    weights: PublishedWeights, metrics: Metrics, source: str, *, within: float
) -> Verification:
    """Published and measured figures side by side."""
    mask = metrics.mask or {}
    return Verification(
        weights=weights,
        source=source,
        pictures=metrics.counts["pictures"],
        failed_pictures=metrics.counts["failed_pictures"],
        whole=WHOLE.get(weights.dataset),
        rows=(
            Compared("box AP", _points(weights.box_ap), _points(metrics.box["AP"])),
            Compared("mask AP", _points(weights.mask_ap), _points(mask.get("AP"))),
        ),
        within=within,
    )


def _points(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction
