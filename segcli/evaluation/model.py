"""Evaluate a model: predict on the pictures of a dataset, and measure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from segcli.annotations import Dataset, Picture
from segcli.console import progress, say, warn
from segcli.data.coco import read_coco
from segcli.errors import DataError
from segcli.evaluation.coco import evaluator, measure
from segcli.evaluation.joining import ClassJoin, join_classes
from segcli.evaluation.metrics import Metrics
from segcli.images import read_image
from segcli.instances import Instances
from segcli.prediction.pipeline import PicturePredictor, Source, run_batches
from segcli.prediction.rows import ScoredObjects


def evaluate_predictor(
    predictor: PicturePredictor,
    dataset: Dataset,
    *,
    max_dets: int = 100,
    found: Iterable[tuple[Picture, Instances]] | None = None,
) -> Metrics:
    """Predict on every picture of a dataset and measure; classes are joined by name.

    Args:
        predictor: the model, which should give at least `max_dets` objects per picture.
        dataset: the truth; pictures without a path count as misses, see `whole_truth`.
        max_dets: detections counted per picture and class.
        found: what `detect` gave, where several processes shared the pictures; None = predict here.

    Returns:
        Metrics whose counts also have `dropped_detections` and `failed_pictures` (they count as misses).

    Raises:
        DataError: no class in common, or no picture at all can be read.
    """
    classes = join_classes(predictor.categories, dataset.categories)
    limit = predictor.resolved.get("max_detections")
    if limit is not None and limit < max_dets:
        warn(f"the model gives at most {limit} objects per picture, --max-dets asks for {max_dets}")
    for line in classes.messages():
        say(line)
    say("evaluator: " + " ".join(evaluator()))
    tally = Counter[str]()
    if found is None:
        found = detect(predictor, dataset, batch_size=predictor.batch_size)
    metrics = measure(dataset, _joined(found, classes, tally), max_dets=max_dets)
    failed = len(dataset.pictures) - tally["pictures"]
    if dataset.pictures and not tally["pictures"]:
        raise DataError(f"{dataset.source}: not one of its pictures can be read")
    if failed:
        warn(f"{failed} of {len(dataset.pictures)} pictures cannot be used and count as misses")
    counts = {
        "dropped_detections": tally["dropped"],
        "unknown_pictures": 0,
        "missing_pictures": 0,
        "failed_pictures": failed,
    }
    return replace(metrics, counts={**metrics.counts, **counts})


def whole_truth(dataset: Dataset, *, crowd_as_instance: bool = False) -> Dataset:
    """A dataset with the pictures put back (without a path) that were left out because of their files.

    Leaving them out would make a model look better on a damaged copy, and differ from evaluating its predictions.

    Args:
        dataset: read with its pictures.
        crowd_as_instance: as it was read.
    """
    if not any(problem.left_out for problem in dataset.problems):
        return dataset
    everything = read_coco(dataset.source, need_pictures=False, crowd_as_instance=crowd_as_instance)
    usable = {picture.id for picture in dataset.pictures}
    others = (picture for picture in everything.pictures if picture.id not in usable)
    return replace(dataset, pictures=(*dataset.pictures, *others))


def detect(
    predictor: PicturePredictor, dataset: Dataset, *, batch_size: int
) -> Iterator[tuple[Picture, Instances]]:
    """What a model finds on the pictures of a dataset, in the dataset's order.

    A picture that cannot be read is named in a warning and left out; one without a path is left out.

    Args:
        predictor: the model; labels are indices into its categories.
        dataset: of which the pictures are taken.
        batch_size: pictures per forward pass.
    """
    pictures = [picture for picture in dataset.pictures if picture.path is not None]
    batches = [pictures[i : i + batch_size] for i in range(0, len(pictures), batch_size)]
    sources = (tuple(map(_source, batch)) for batch in batches)
    outcomes = run_batches(predictor, sources, read=_read)
    with progress(len(pictures), "evaluate", "pictures") as bar:
        for batch, results in zip(batches, outcomes, strict=True):
            for picture, outcome in zip(batch, results, strict=True):
                if outcome.instances is None:
                    warn(f"{picture.file_name}: {outcome.error}; left out")
                else:
                    yield picture, outcome.instances
            bar.update(len(batch))


def _joined(
    found: Iterable[tuple[Picture, Instances]], classes: ClassJoin, tally: Counter[str]
) -> Iterator[tuple[Picture, ScoredObjects]]:
    """Labels of the truth, with what is left out counted."""
    for picture, instances in found:
        objects = classes.apply(ScoredObjects.from_instances(instances))
        tally["pictures"] += 1
        tally["dropped"] += len(instances) - len(objects)
        yield picture, objects


def _source(picture: Picture) -> Source:
    assert picture.path is not None
    return Source(picture.file_name, picture.path, picture.raw_pixels)


def _read(source: Source) -> NDArray[np.uint8]:
    return read_image(source.path, raw_pixels=source.raw_pixels)
