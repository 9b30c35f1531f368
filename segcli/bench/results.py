"""What a contestant wrote, read back for the comparison."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segcli.bench.compare import Found
from segcli.errors import PredictionError
from segcli.masks import Masks
from segcli.prediction.export import PREDICTIONS
from segcli.prediction.reader import PredictionsFile, read_predictions
from segcli.prediction.rows import PredictedPicture

STOCK_RESULTS = "results.json"
Results = list[Found]


def read_results(out: Path, keys: Sequence[str]) -> Results:
    """The detections of each picture, in the order of `keys`.

    Args:
        out: folder of one job, ours (`predictions.json`) or stock's (`results.json`, a list whose `image_id` counts
            the pictures from 1).
        keys: of the pictures.

    Raises:
        DataError: a file is damaged.
        PredictionError: a picture of ours is not in it.
    """
    ours = (out / PREDICTIONS).is_file()
    file = read_predictions(out / (PREDICTIONS if ours else STOCK_RESULTS))
    names: Sequence[str | int] = keys if ours else range(1, len(keys) + 1)
    pictures = {(p.file_name if ours else p.image_id): p for p in file.pictures}
    lacks = [name for name in names if name not in pictures]
    if ours and lacks:
        raise PredictionError(f"{lacks[0]}: not among the results of the job")
    return [_found(file, pictures[n]) if n in pictures else _nothing() for n in names]


def _found(file: PredictionsFile, picture: PredictedPicture) -> Found:
    objects = picture.objects()
    boxes = objects.boxes.copy()
    boxes[:, 2:] += boxes[:, :2]
    classes = np.array([file.category_ids[label] for label in objects.labels], object)
    return Found(classes, boxes, objects.scores, objects.masks or Masks.empty((0, 0)))


def _nothing() -> Found:
    """Of a picture without a row: stock's list does not mention it."""
    return Found(np.zeros(0, object), np.zeros((0, 4)), np.zeros(0), Masks.empty((0, 0)))
