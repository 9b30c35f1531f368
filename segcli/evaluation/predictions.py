"""Evaluate a file of predictions; no picture is looked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from segcli.annotations import Dataset, Picture
from segcli.console import say, warn
from segcli.evaluation.coco import evaluator, measure
from segcli.evaluation.joining import (
    ClassJoin,
    PictureJoin,
    join_class_ids,
    join_classes,
    join_pictures,
)
from segcli.evaluation.metrics import Metrics
from segcli.prediction.reader import PredictionsFile
from segcli.prediction.rows import ScoredObjects, has_mask


def evaluate_predictions(truth: Dataset, file: PredictionsFile, *, max_dets: int = 100) -> Metrics:
    """Join a predictions file to the truth, say what was left out, and measure the rest.

    Args:
        truth: the annotations; their pictures are not needed.
        file: as read.
        max_dets: detections counted per picture and class.

    Returns:
        Metrics whose counts also have `dropped_detections`, `unknown_pictures` and `missing_pictures`.

    Raises:
        DataError: no picture or no class in common, damaged rows, or rows without scores.
    """
    pictures = join_pictures(file, truth)
    classes = (
        join_class_ids(file.category_ids, truth.categories)
        if file.categories is None
        else join_classes(file.categories, truth.categories)
    )
    for line in (*pictures.messages(), *classes.messages(), *_row_messages(file)):
        say(line)
    say("evaluator: " + " ".join(evaluator()))
    metrics = measure(truth, _detections(pictures, classes), max_dets=max_dets)
    measured = metrics.counts["detections"]
    joined = sum(len(predicted.rows) for _, predicted in pictures.pairs)
    if joined > measured:
        say(f"{joined - measured} detections of dropped classes are not counted")
    counts = {
        "dropped_detections": joined - measured,
        "unknown_pictures": len(pictures.unknown),
        "missing_pictures": len(pictures.missing),
        "failed_pictures": 0,
    }
    return replace(metrics, counts={**metrics.counts, **counts})


def _detections(
    pictures: PictureJoin, classes: ClassJoin
) -> Iterator[tuple[Picture, ScoredObjects]]:
    for picture, predicted in pictures.pairs:
        yield picture, classes.apply(predicted.objects(picture.size))


def _row_messages(file: PredictionsFile) -> Iterator[str]:
    rows = [row for picture in file.pictures for row in picture.rows]
    if not rows:
        warn(f"{file.source}: not one object in it; every picture counts as a miss")
        return
    masks = sum(map(has_mask, rows))
    if masks == 0:
        yield "the predictions have no masks: only boxes are measured"
    elif masks < len(rows):
        warn(f"{len(rows) - masks} predictions have no mask; for mask metrics theirs are empty")
    boxes = sum(bool(row.get("bbox")) for row in rows)
    if boxes < len(rows):
        yield f"{len(rows) - boxes} predictions have no box: theirs is drawn around the mask"
