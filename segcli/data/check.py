"""What a dataset holds and what is wrong with it, as numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from segcli.annotations import Annotation, Dataset, Problem

SMALL, LARGE = 32.0**2, 96.0**2  # COCO's bounds of object areas, in square pixels
_EXAMPLES = 3


@dataclass(frozen=True)
class ClassCount:
    """One class.

    Attributes:
        id: of the category in the file.
        name: of the class.
        objects: its annotations, crowds apart.
        crowds: its `iscrowd` annotations.
        pictures: on how many pictures it has an object.
    """

    id: int | str
    name: str
    objects: int
    crowds: int
    pictures: int


@dataclass(frozen=True)
class ProblemGroup:
    """All problems of one kind.

    Attributes:
        kind: short name.
        count: how many.
        left_out: something was left out for each; else repaired, or only worth knowing.
        examples: the first few.
    """

    kind: str
    count: int
    left_out: bool
    examples: tuple[Problem, ...]


@dataclass(frozen=True)
class Report:
    """What was found in a dataset; objects are usable annotations that are no crowds.

    Attributes:
        source: the annotation file.
        images: folder of the pictures; None where none was found or needed.
        pictures: usable ones.
        pictures_without_objects: of these, those with nothing on them.
        objects: usable annotations, crowds apart.
        crowds: usable `iscrowd` annotations.
        objects_per_picture: `min`, `median`, `max`.
        object_sizes: objects that are `small` (< 32² px), `medium`, `large` (> 96² px) by annotated area.
        picture_sizes: `[H, W]` in pixels and how many pictures have it, commonest first.
        classes: in the order of labels.
        problems: by kind, commonest first, those that left something out before the others.
        left_out: how many problems left something out.
    """

    source: str
    images: str | None
    pictures: int
    pictures_without_objects: int
    objects: int
    crowds: int
    objects_per_picture: dict[str, float]
    object_sizes: dict[str, int]
    picture_sizes: tuple[tuple[tuple[int, int], int], ...]
    classes: tuple[ClassCount, ...]
    problems: tuple[ProblemGroup, ...]
    left_out: int

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


def check(dataset: Dataset) -> Report:
    """Count what a dataset holds."""
    objects = [[a for a in p.annotations if not a.iscrowd] for p in dataset.pictures]
    counts = [len(found) for found in objects]
    crowds = [a for p in dataset.pictures for a in p.annotations if a.iscrowd]
    return Report(
        source=str(dataset.source),
        images=None if dataset.images is None else str(dataset.images),
        pictures=len(dataset.pictures),
        pictures_without_objects=counts.count(0),
        objects=sum(counts),
        crowds=len(crowds),
        objects_per_picture=_spread(counts),
        object_sizes=_object_sizes([a for found in objects for a in found]),
        picture_sizes=tuple(Counter(p.size for p in dataset.pictures).most_common()),
        classes=_classes(dataset, objects, crowds),
        problems=_grouped(dataset.problems),
        left_out=sum(problem.left_out for problem in dataset.problems),
    )


def _spread(counts: Sequence[int]) -> dict[str, float]:
    if not counts:
        return {"min": 0, "median": 0, "max": 0}
    return {"min": min(counts), "median": float(median(counts)), "max": max(counts)}


def _object_sizes(objects: Sequence[Annotation]) -> dict[str, int]:
    small = sum(a.area < SMALL for a in objects)
    large = sum(a.area > LARGE for a in objects)
    return {"small": small, "medium": len(objects) - small - large, "large": large}


def _classes(
    dataset: Dataset, objects: Sequence[Sequence[Annotation]], crowds: Sequence[Annotation]
) -> tuple[ClassCount, ...]:
    of_object = Counter(a.label for found in objects for a in found)
    of_crowd = Counter(a.label for a in crowds)
    of_picture = Counter(label for found in objects for label in {a.label for a in found})
    categories = dataset.categories
    return tuple(
        ClassCount(category_id, name, of_object[label], of_crowd[label], of_picture[label])
        for label, (category_id, name) in enumerate(
            zip(categories.ids, categories.names, strict=True)
        )
    )


def _grouped(problems: Sequence[Problem]) -> tuple[ProblemGroup, ...]:
    groups: dict[tuple[str, bool], list[Problem]] = {}
    for problem in problems:
        groups.setdefault((problem.kind, problem.left_out), []).append(problem)
    made = [
        ProblemGroup(kind, len(rows), left_out, tuple(rows[:_EXAMPLES]))
        for (kind, left_out), rows in groups.items()
    ]
    return tuple(sorted(made, key=lambda group: (not group.left_out, -group.count)))
