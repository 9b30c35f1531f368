"""Several datasets as one: classes joined by name, each dataset telling only of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from segcli.annotations import Dataset, Picture
from segcli.categories import Categories
from segcli.data.packed import PackedPictures
from segcli.errors import DataError


@dataclass(frozen=True, eq=False)
class Joined:
    """Datasets that are trained on together.

    Attributes:
        pictures: of all of them, in the order given; each knows its dataset.
        categories: every class once, by name.
        classes: bool (D, K + 1): which classes each dataset tells of, by label from 1; background (0) all do. What is
            not annotated in a dataset of cats may well be a dog: its pictures say nothing about dogs.
    """

    pictures: PackedPictures
    categories: Categories
    classes: NDArray[np.bool_]


def join(datasets: Sequence[Dataset]) -> Joined:
    """Join datasets by the names of their classes, in the order in which they come up.

    Ids are kept where all classes have different ones; else classes are numbered from 1.

    Raises:
        DataError: no dataset is given.
    """
    if not datasets:
        raise DataError("no dataset to train on; give at least one")
    categories = _merged(datasets)
    label_of = {name: label for label, name in enumerate(categories.names)}
    tables = [[label_of[name] for name in d.categories.names] for d in datasets]
    classes = np.zeros((len(datasets), len(categories) + 1), bool)
    classes[:, 0] = True
    for row, table in enumerate(tables):
        classes[row, np.array(table, np.int64) + 1] = True
    numbers = [row for row, d in enumerate(datasets) for _ in d.pictures]
    return Joined(PackedPictures.of(_relabelled(datasets, tables), numbers), categories, classes)


def _merged(datasets: Sequence[Dataset]) -> Categories:
    ids: dict[str, int | str] = {}
    for dataset in datasets:
        for name, number in zip(dataset.categories.names, dataset.categories.ids, strict=True):
            ids.setdefault(name, number)
    if len(set(ids.values())) < len(ids):
        return Categories.from_names(list(ids))
    return Categories(tuple(ids), tuple(ids.values()))


def _relabelled(datasets: Sequence[Dataset], tables: Sequence[Sequence[int]]) -> Iterator[Picture]:
    for dataset, table in zip(datasets, tables, strict=True):
        for picture in dataset.pictures:
            changed = [replace(a, label=table[a.label]) for a in picture.annotations]
            yield replace(picture, annotations=tuple(changed))
