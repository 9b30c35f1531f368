"""What is trained on: one or several datasets in one block of bytes that worker processes share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segcli.annotations import Dataset, Picture
from segcli.categories import Categories
from segcli.data.joined import join
from segcli.data.packed import PackedPictures
from segcli.errors import TrainingError


@dataclass(frozen=True, eq=False)
class Material:
    """Training pictures. No `Picture` or `Annotation` objects are held: workers would copy them page by page.

    Attributes:
        pictures: those without any annotation are kept, as background; those that hold only crowds are not.
        categories: the classes of all datasets, by name.
        classes: bool (D, K + 1), which classes each dataset tells of; None where there is one dataset.
        sources: the annotation files.
        crowds_alone: how many pictures were left out since they hold only crowds.
    """

    pictures: PackedPictures
    categories: Categories
    classes: NDArray[np.bool_] | None
    sources: tuple[Path, ...]
    crowds_alone: int

    @classmethod
    def of(cls, datasets: Sequence[Dataset]) -> Material:
        """Pack datasets.

        Raises:
            TrainingError: there is no object in any of them.
        """
        used = [replace(d, pictures=tuple(trainable(d.pictures))) for d in datasets]
        joined = join(used)
        sources = tuple(d.source for d in datasets)
        if not (joined.pictures.column("crowd") == 0).any():
            names = ", ".join(map(str, sources))
            raise TrainingError(f"{names}: no object to train on")
        classes = joined.classes if len(datasets) > 1 else None
        crowds = sum(len(d.pictures) for d in datasets) - sum(len(d.pictures) for d in used)
        return cls(joined.pictures, joined.categories, classes, sources, crowds)

    @property
    def empty(self) -> int:
        """Pictures without objects."""
        return int((np.diff(self.pictures.column("annotation_ends")) == 0).sum())

    @property
    def name(self) -> str:
        """The annotation files, for messages."""
        return ", ".join(map(str, self.sources))


def trainable(pictures: Iterable[Picture]) -> Iterator[Picture]:
    """Pictures with objects, and pictures without any annotation, as background; not those that hold only crowds."""
    for picture in pictures:
        if not picture.annotations or not all(a.iscrowd for a in picture.annotations):
            yield picture
