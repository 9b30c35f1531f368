"""AP and AR of boxes and masks, matched and accumulated by pycocotools."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segcli.annotations import Dataset, Picture
from segcli.errors import DataError
from segcli.evaluation.metrics import ClassMetrics, Curves, Metrics
from segcli.instances import Instances
from segcli.masks import Masks
from segcli.prediction.rows import ScoredObjects

Row = dict[str, Any]
Numbers = dict[int | str, int]


def evaluator() -> tuple[str, str]:
    """Name and version of the program that matches and accumulates."""
    return "pycocotools", importlib.metadata.version("pycocotools")


def evaluate(
    truth: Dataset, detections: Iterable[tuple[Picture, Instances]], *, max_dets: int = 100
) -> Metrics:
    """Measure what a model found.

    Args:
        truth: the annotations as the file has them.
        detections: a picture of `truth` and what was found on it, in the original picture's frame, labels in
            `truth.categories`. Pictures that do not come count as misses. Kept as RLE only.
        max_dets: detections counted per picture and class.

    Raises:
        DataError: objects without scores, or masks of another size than the picture.
    """
    rows = ((picture, ScoredObjects.from_instances(found)) for picture, found in detections)
    return measure(truth, rows, max_dets=max_dets)


def measure(
    truth: Dataset, detections: Iterable[tuple[Picture, ScoredObjects]], *, max_dets: int = 100
) -> Metrics:
    """Like `evaluate`, for detections in float64: numbers of a file are measured as they stand in it."""
    numbers = _picture_numbers(truth.pictures)
    results = _Results(numbers)
    for picture, found in detections:
        results.add(picture, found)
    limits = tuple(sorted({1, min(10, max_dets), max_dets}))
    rows = _truth_rows(truth, numbers)
    box_curves = _curves(rows, results.boxes, "bbox", limits)
    masks = results.masks if results.has_masks else None
    mask_curves = None if masks is None else _curves(rows, masks, "segm", limits)
    return Metrics(
        box=box_curves.summary(),
        mask=None if mask_curves is None else mask_curves.summary(),
        per_class=_per_class(truth, results.boxes, box_curves, mask_curves),
        max_dets=max_dets,
        evaluator=evaluator(),
        counts=_counts(truth, results.boxes),
        box_curves=box_curves,
        mask_curves=mask_curves,
    )


class _Results:
    """ScoredObjects as the rows that pycocotools matches, one set for boxes and one for masks."""

    def __init__(self, numbers: Numbers) -> None:
        self.boxes: list[Row] = []
        self.masks: list[Row] = []
        self._numbers = numbers
        self._any_masks = False

    @property
    def has_masks(self) -> bool:
        """Whether masks can be measured; nothing found is a result for masks, too."""
        return self._any_masks or not self.boxes

    def add(self, picture: Picture, found: ScoredObjects) -> None:
        """Take over what was found on one picture; what has no mask among masks counts as an empty one."""
        masks = found.masks
        if masks is None:
            masks = Masks.from_coco([_no_mask(picture.size)] * len(found), picture.size)
        elif len(found):
            self._any_masks = True
        if len(found) and masks.size != picture.size:
            raise DataError(
                f"{picture.file_name}: predicted masks of size {masks.size}, the truth's picture has "
                f"{picture.size} (height, width); predict on the pictures that were annotated"
            )
        areas = masks.area()
        for i in range(len(found)):
            box = found.boxes[i].tolist()
            row = {
                "id": len(self.boxes) + 1,  # pycocotools takes id 0 for "no match"
                "image_id": self._numbers[picture.id],
                "category_id": int(found.labels[i]) + 1,
                "score": float(found.scores[i]),
                "iscrowd": 0,
            }
            self.boxes.append({**row, "bbox": box, "area": box[2] * box[3]})
            self.masks.append({**row, "segmentation": masks.coco(i), "area": int(areas[i])})


def _no_mask(size: tuple[int, int]) -> Row:
    return {"size": list(size), "counts": [size[0] * size[1]]}


def _picture_numbers(pictures: Sequence[Picture]) -> Numbers:
    """Numbers from 1 in the order of ids, by which pycocotools breaks ties between equal scores."""
    ids = [picture.id for picture in pictures]
    numeric = all(isinstance(i, int) for i in ids)
    ranked = sorted(ids, key=None if numeric else str)
    return {picture_id: number for number, picture_id in enumerate(ranked, start=1)}


def _truth_rows(truth: Dataset, numbers: Numbers) -> Row:
    """The annotations as a COCO dict with ids from 1, areas and polygons as annotated."""
    annotations: list[Row] = []
    for picture in truth.pictures:
        for a in picture.annotations:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": numbers[picture.id],
                    "category_id": a.label + 1,
                    "bbox": a.bbox.tolist(),
                    "area": a.area,
                    "iscrowd": int(a.iscrowd),
                    "segmentation": a.coco_segmentation(),
                }
            )
    images = [
        {"id": numbers[p.id], "height": p.size[0], "width": p.size[1]} for p in truth.pictures
    ]
    categories = [{"id": k + 1, "name": n} for k, n in enumerate(truth.categories.names)]
    return {"images": images, "categories": categories, "annotations": annotations}


def _curves(truth: Row, results: list[Row], kind: str, limits: tuple[int, ...]) -> Curves:
    """Run pycocotools; what it prints is not for the user's stdout."""
    with contextlib.redirect_stdout(io.StringIO()):
        run = COCOeval(_index(truth), _index({**truth, "annotations": results}), kind)
        run.params.maxDets = list(limits)
        run.evaluate()
        run.accumulate()
    return Curves(run.eval["precision"], run.eval["recall"], run.eval["scores"], limits)


def _index(dataset: Row) -> Any:
    coco = COCO()
    coco.dataset = dataset
    coco.createIndex()
    return coco


def _per_class(
    truth: Dataset, boxes: list[Row], box_curves: Curves, mask_curves: Curves | None
) -> list[ClassMetrics]:
    annotated = Counter(a.label for p in truth.pictures for a in p.annotations if not a.iscrowd)
    found = Counter(row["category_id"] - 1 for row in boxes)
    return [
        ClassMetrics(
            name=name,
            id=truth.categories.ids[label],
            box_ap=box_curves.class_ap(label),
            mask_ap=None if mask_curves is None else mask_curves.class_ap(label),
            truth=annotated[label],
            detections=found[label],
        )
        for label, name in enumerate(truth.categories.names)
    ]


def _counts(truth: Dataset, boxes: list[Row]) -> dict[str, int]:
    crowds = [a.iscrowd for picture in truth.pictures for a in picture.annotations]
    return {
        "pictures": len(truth.pictures),
        "truth": len(crowds) - sum(crowds),
        "crowds": sum(crowds),
        "detections": len(boxes),
    }
