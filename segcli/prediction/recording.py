"""What became of a picture, as a row of a shard, and back.

Good: `{"file": key, "batch": n, "height": H, "width": W, "objects": [{"label", "score", "bbox", "area",
"segmentation"}]}`; failed: `{"file": key, "batch": n, "error": text}`. Boxes are x, y, width, height in pixels,
worked out in float64 from the float32 corners; every float32 is written exactly, so that evaluating the file and
evaluating the model give the same bits. `area` is in pixels of the mask, or of the box where there is no mask.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from segcli.errors import PredictionError
from segcli.instances import Instances
from segcli.masks import Masks
from segcli.prediction.pipeline import Outcome

Row = dict[str, Any]


def row_of(outcome: Outcome, batch: int) -> Row:
    """The row of one picture of the planned batch `batch`.

    Raises:
        PredictionError: a number is not finite.
    """
    key = outcome.source.key
    head: Row = {"file": key, "batch": batch}
    if outcome.instances is None:
        return {**head, "error": outcome.error or "no reason given"}
    height, width = outcome.instances.image_size
    objects = _objects(outcome.instances, key)
    return {**head, "height": int(height), "width": int(width), "objects": objects}


def _objects(instances: Instances, key: str) -> list[Row]:
    if instances.scores is None:
        raise PredictionError(f"{key}: the model gave objects without scores")
    boxes = instances.boxes.astype(np.float64)  # (N, 4) xyxy
    scores = instances.scores.astype(np.float64)
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise PredictionError(
            f"{key}: the model gave boxes or scores that are not finite; are its weights damaged?"
        )
    boxes[:, 2:] -= boxes[:, :2]
    masks = instances.masks
    areas = boxes[:, 2] * boxes[:, 3] if masks is None else masks.area()
    rows: list[Row] = [
        {"label": label, "score": score, "bbox": box, "area": area}
        for label, score, box, area in zip(
            instances.labels.tolist(), scores.tolist(), boxes.tolist(), areas.tolist(), strict=True
        )
    ]
    if masks is not None:
        for i, row in enumerate(rows):
            row["segmentation"] = masks.coco(i)
    return rows


def instances_of(row: Row) -> Instances:
    """The objects of a good row."""
    size = (row["height"], row["width"])
    objects = row["objects"]
    boxes = np.array([o["bbox"] for o in objects], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    has_masks = all("segmentation" in o for o in objects)
    return Instances(
        image_size=size,
        boxes=boxes.astype(np.float32),
        labels=np.array([o["label"] for o in objects], np.int32),
        scores=np.array([o["score"] for o in objects], np.float32),
        masks=Masks.from_coco([o["segmentation"] for o in objects], size) if has_masks else None,
    )


def drawn_objects(instances: Instances, draw_score: float) -> list[int]:
    """Places of the objects at or above the draw score; compared in float32, as overlays do."""
    assert instances.scores is not None
    return [int(i) for i in np.flatnonzero(instances.scores >= np.float32(draw_score))]
