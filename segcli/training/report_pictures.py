"""On which validation pictures a model does best and worst, each drawn beside its truth."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from segcli.annotations import Dataset, Picture
from segcli.categories import Categories
from segcli.config import DrawConfig
from segcli.evaluation.joining import join_classes
from segcli.evaluation.model import detect
from segcli.images import read_image
from segcli.instances import Instances
from segcli.masks import Masks
from segcli.overlay.render import draw_instances
from segcli.prediction.pipeline import PicturePredictor
from segcli.training.report_names import shown

MOST_PICTURES = 24
"""That are predicted for a report: enough to choose from, a few seconds with a small model."""
_SHOWN = 4  # best ones, and worst ones
_SIDE = 460  # longest side of a drawn picture, pixels
_OVERLAP = 0.5  # from this IoU on an object counts as found
_SURE = DrawConfig().draw_score
_MISSED, _EXTRA = (214, 0, 0), (255, 106, 0)


@dataclass(frozen=True, eq=False)
class Judged:
    """One picture, what is on it and what the model found, crowd regions apart.

    Attributes:
        picture: of the validation set.
        truth: its objects; labels of the truth's categories.
        found: detections with a score of 0.5 or more that lie in no crowd region; likewise.
        truth_matched: bool (len(truth),); found by the model.
        found_matched: bool (len(found),); true.
        overlap: mean mask IoU of the matches; 0 without any.
    """

    picture: Picture
    truth: Instances
    found: Instances
    truth_matched: NDArray[np.bool_]
    found_matched: NDArray[np.bool_]
    overlap: float

    @property
    def f1(self) -> float:
        """2 × matches / (objects + detections); 1 where there is neither."""
        total = len(self.truth) + len(self.found)
        return 2 * int(self.truth_matched.sum()) / total if total else 1.0


def judge(picture: Picture, found: Instances) -> Judged:
    """Match what was found on a picture with its truth, mask by mask, best score first, within a class.

    Args:
        picture: with its annotations.
        found: with masks and scores; labels of the truth's categories.
    """
    objects = [a for a in picture.annotations if not a.iscrowd]
    crowds = [a.mask(picture.size).coco(0) for a in picture.annotations if a.iscrowd]
    truth = _instances(picture, [(a.mask(picture.size), a.label) for a in objects])
    scores = found.scores
    assert scores is not None
    found = found[np.argsort(-scores, kind="stable")]
    assert found.scores is not None
    found = found[found.scores >= _SURE]
    if crowds:
        inside = _overlaps(found, crowds, crowd=True).max(axis=1, initial=0.0)
        found = found[inside < _OVERLAP]
    overlaps = _overlaps(found, _rows(truth))
    overlaps[found.labels[:, None] != truth.labels[None]] = 0.0
    truth_matched, found_matched = np.zeros(len(truth), bool), np.zeros(len(found), bool)
    matched: list[float] = []
    for i, row in enumerate(overlaps):
        row = np.where(truth_matched, 0.0, row)
        if row.max(initial=0.0) >= _OVERLAP:
            j = int(row.argmax())
            truth_matched[j] = found_matched[i] = True
            matched.append(float(row[j]))
    overlap = float(np.mean(matched)) if matched else 0.0
    return Judged(picture, truth, found, truth_matched, found_matched, overlap)


def judged_pictures(
    predictor: PicturePredictor, val: Dataset, *, most: int = MOST_PICTURES
) -> list[Judged]:
    """Predict on pictures spread evenly over a validation set; those that cannot be read are warned of and left out.

    Raises:
        DataError: no class in common.
    """
    classes = join_classes(predictor.categories, val.categories)
    readable = [p for p in val.pictures if p.path is not None]
    step = max(len(readable) / most, 1.0)
    chosen = [readable[int(i * step)] for i in range(min(most, len(readable)))]
    sample = replace(val, pictures=tuple(chosen))
    judged = []
    for picture, found in detect(predictor, sample, batch_size=predictor.batch_size):
        labels = classes.labels[found.labels]
        judged.append(judge(picture, replace(found, labels=labels)[labels >= 0]))
    return judged


def gallery(judged: Sequence[Judged], categories: Categories, pictures: int) -> str:
    """The best and the worst as HTML, worst first; a picture that is in neither is not shown.

    Args:
        judged: pictures without any object or detection say nothing and are left out.
        categories: of the truth.
        pictures: how many the validation set has.
    """
    telling = [j for j in judged if len(j.truth) or len(j.found)]
    if not telling:
        return (
            "<p>No validation picture with an object, or with anything found, could be drawn.</p>"
        )
    ranked = sorted(telling, key=lambda j: (j.f1, j.overlap))
    count = min(_SHOWN, (len(ranked) + 1) // 2)
    worst, best = ranked[:count], ranked[count:][-count:][::-1]
    parts = [
        f"<p>Of {len(judged)} pictures spread over the {pictures} of the validation set, predicted with the best "
        f"weights, detections from score {_SURE:g} on. F1 counts an object as found where a mask of its class has an "
        'IoU of .5 or more with it. <b class="missed">Red boxes</b>: missed objects. '
        '<b class="extra">Orange boxes</b>: detections that match no object.</p>'
    ]
    for title, rows in (("Worst", worst), ("Best", best)):
        if rows:
            cards = "".join(_card(row, categories) for row in rows)
            parts.append(f"<h3>{title}</h3><div class=pairs>{cards}</div>")
    return "".join(parts)


def _card(judged: Judged, categories: Categories) -> str:
    image = read_image(_path(judged.picture), raw_pixels=judged.picture.raw_pixels)
    truth = _drawn(image, judged.truth, categories, ~judged.truth_matched, _MISSED)
    found = _drawn(image, judged.found, categories, ~judged.found_matched, _EXTRA)
    name = shown(judged.picture.file_name)
    missed = int((~judged.truth_matched).sum())
    extra = int((~judged.found_matched).sum())
    return (
        f"<figure class=pair><div><div><b>truth</b>{_embedded(truth, f'truth of {name}')}</div>"
        f"<div><b>found</b>{_embedded(found, f'found on {name}')}</div></div>"
        f"<figcaption><code>{name}</code><br>F1 {judged.f1:.2f}, mean IoU {judged.overlap:.2f}: "
        f"{len(judged.truth)} objects, {missed} missed, {extra} extra"
        f"{_by_class(judged, categories)}</figcaption></figure>"
    )


def _by_class(judged: Judged, categories: Categories) -> str:
    """Which classes were missed or made up, where there are several."""
    if len(categories) == 1:
        return ""
    notes = []
    for word, objects, matched in (
        ("missed", judged.truth, judged.truth_matched),
        ("extra", judged.found, judged.found_matched),
    ):
        labels = objects.labels[~matched]
        counts = [f"{(labels == k).sum()} {shown(categories.names[k])}" for k in np.unique(labels)]
        if counts:
            notes.append(f"; {word}: {', '.join(counts)}")
    return "".join(notes)


def _drawn(
    image: NDArray[np.uint8],
    objects: Instances,
    categories: Categories,
    wrong: NDArray[np.bool_],
    color: tuple[int, int, int],
) -> NDArray[np.uint8]:
    """Objects as overlays show them, at the report's size, with boxes around those that are wrong.

    Returns:
        uint8 (h, w, 3) RGB, its longest side `_SIDE`.
    """
    # no labels: too small to read at this size, and the caption names the classes of what is wrong
    style = DrawConfig(color_by="class" if len(categories) > 1 else "instance", labels=False)
    height, width = image.shape[:2]
    scale = _SIDE / max(height, width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    drawn = draw_instances(image, objects, categories, style)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    canvas = np.ascontiguousarray(cv2.resize(drawn, size, interpolation=how), np.uint8)
    for box in objects.boxes[wrong] * scale:
        x0, y0, x1, y1 = (round(float(v)) for v in box)
        cv2.rectangle(canvas, (x0 - 1, y0 - 1), (x1, y1), color, 2)
    return canvas


def _embedded(image: NDArray[np.uint8], alt: str) -> str:
    """A picture inside the page. `alt` is escaped already."""
    done, data = cv2.imencode(
        ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85]
    )
    assert done
    text = base64.b64encode(data.tobytes()).decode("ascii")
    height, width = image.shape[:2]
    return f'<img alt="{alt}" width={width} height={height} src="data:image/jpeg;base64,{text}">'


def _path(picture: Picture) -> Path:
    assert picture.path is not None
    return picture.path


def _instances(picture: Picture, objects: Sequence[tuple[Masks, int]]) -> Instances:
    masks = Masks.from_runs([mask.runs(0) for mask, _ in objects], picture.size)
    labels = np.array([label for _, label in objects], np.int32)
    return Instances(picture.size, masks.boxes(), labels, masks=masks)


def _rows(instances: Instances) -> list[object]:
    assert instances.masks is not None
    return [instances.masks.coco(i) for i in range(len(instances))]


def _overlaps(
    found: Instances, others: Sequence[object], *, crowd: bool = False
) -> NDArray[np.float64]:
    """Mask IoU, float64 (len(found), len(others)); with `crowd`, the share of each detection that lies in a region."""
    if not len(found) or not others:
        return np.zeros((len(found), len(others)))
    table: NDArray[np.float64] = np.asarray(
        coco_mask.iou(_rows(found), list(others), [int(crowd)] * len(others)), np.float64
    )
    return table
