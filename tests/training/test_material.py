"""Datasets as training takes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from segcli.data.coco import read_coco
from segcli.errors import TrainingError
from segcli.training.material import Material

Squares = Callable[..., Path]


def test_no_objects(squares: Squares) -> None:
    """Pictures without objects alone teach nothing."""
    dataset = read_coco(squares("train", 2))
    empty = replace(dataset, pictures=tuple(replace(p, annotations=()) for p in dataset.pictures))
    with pytest.raises(TrainingError, match="no object to train on"):
        Material.of([empty])


def test_crowds_alone_are_left_out_and_background_is_kept(squares: Squares) -> None:
    """What a crowd covers is unknown; a picture without annotations is known to be empty."""
    dataset = read_coco(squares("train", 3))
    first, second, third = dataset.pictures
    crowd = tuple(replace(a, iscrowd=True) for a in second.annotations)
    changed = (first, replace(second, annotations=crowd), replace(third, annotations=()))
    material = Material.of([replace(dataset, pictures=changed)])
    assert [p.file_name for p in material.pictures] == ["0.png", "2.png"]
    assert (material.empty, material.crowds_alone) == (1, 1)
    assert material.classes is None
    assert material.name.endswith("train.json")


def test_several_datasets(squares: Squares) -> None:
    """Each tells only of its own classes."""
    one, two = squares("one", 1, ("cat", "dog")), squares("three", 2, ("dog", "cow"))
    material = Material.of([read_coco(one), read_coco(two)])
    assert material.categories.names == ("cat", "dog", "cow")
    assert material.classes is not None
    assert material.crowds_alone == 0
    assert material.classes.tolist() == [[True, True, True, False], [True, False, True, True]]
    assert [material.pictures.dataset_of(i) for i in range(3)] == [0, 1, 1]
