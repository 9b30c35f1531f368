"""Several datasets as one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segcli.annotations import Annotation, Dataset, Picture
from segcli.categories import Categories
from segcli.data.joined import join
from segcli.errors import DataError


def _dataset(names: list[str], *labels: list[int], ids: list[int] | None = None) -> Dataset:
    part = (np.array([[0, 0], [3, 0], [3, 3]], np.float64),)
    pictures = tuple(
        Picture(i, f"{i}.png", None, (9, 9), tuple(
            Annotation(0, k, np.zeros(4), 1.0, polygons=part) for k in row
        ))
        for i, row in enumerate(labels)
    )  # fmt: skip
    numbers = tuple(ids or range(1, len(names) + 1))
    return Dataset(Path("x.json"), None, pictures, Categories(tuple(names), numbers))


def test_no_dataset() -> None:
    """There is nothing to train on."""
    with pytest.raises(DataError, match="at least one"):
        join([])


def test_one_dataset_stays_what_it_is() -> None:
    """And tells of all its classes."""
    joined = join([_dataset(["cat", "dog"], [0, 1], ids=[17, 18])])
    assert joined.categories == Categories(("cat", "dog"), (17, 18))
    assert joined.classes.tolist() == [[True, True, True]]
    assert [a.label for a in joined.pictures[0].annotations] == [0, 1]


def test_classes_are_joined_by_name() -> None:
    """Ids clash, so classes are numbered anew; each dataset tells of its own, background all do."""
    joined = join([_dataset(["cat", "dog"], [0], [1]), _dataset(["cow", "cat"], [0, 1], [])])
    assert joined.categories == Categories.from_names(["cat", "dog", "cow"])
    labels = [[a.label for a in p.annotations] for p in joined.pictures]
    assert labels == [[0], [1], [2, 0], []]
    assert [joined.pictures.dataset_of(i) for i in range(4)] == [0, 0, 1, 1]
    assert joined.classes.tolist() == [[True, True, True, False], [True, True, False, True]]


def test_ids_that_do_not_clash_are_kept() -> None:
    """Those of COCO stay COCO's."""
    joined = join([_dataset(["cat"], ids=[17]), _dataset(["dog", "cat"], ids=[18, 99])])
    assert joined.categories == Categories(("cat", "dog"), (17, 18))
