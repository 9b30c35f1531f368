"""Which predicted picture and class is which of the truth: by name, or by id for a bare list."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from segcli.annotations import Dataset, Picture
from segcli.categories import Categories
from segcli.data.findings import as_id
from segcli.errors import DataError
from segcli.prediction.reader import PredictionsFile
from segcli.prediction.rows import Id, PredictedPicture, ScoredObjects

T = TypeVar("T")
_SHOWN = 5  # names in a message


@dataclass(frozen=True, eq=False)
class ClassJoin:
    """Predicted labels in terms of the truth.

    Attributes:
        labels: int32 (P,), the truth's label for each predicted label; −1 where the class is dropped.
        dropped: predicted classes that the truth does not have (and placeholders), in order.
        truth_only: classes of the truth that cannot be predicted; they score 0.
    """

    labels: NDArray[np.int32]
    dropped: tuple[str, ...]
    truth_only: tuple[str, ...]

    def apply(self, found: ScoredObjects) -> ScoredObjects:
        """The detections of common classes, with the truth's labels."""
        labels = self.labels[found.labels]
        kept = found[labels >= 0]
        return replace(kept, labels=labels[labels >= 0])

    def messages(self) -> list[str]:
        """What the user should know, one line each."""
        lines = []
        if self.dropped:
            lines.append(f"dropped, since the truth has no such class: {_some(self.dropped)}")
        if self.truth_only:
            names = ", ".join(self.truth_only)
            lines.append(f"not predicted, 0 where the truth has such objects: {names}")
        return lines


def join_classes(predicted: Categories, truth: Categories) -> ClassJoin:
    """Join classes by name; placeholders of a model's head stand for nothing.

    Raises:
        DataError: no name in common.
    """
    known = truth.label_of_name()
    labels = [known.get(name, -1) for name in predicted.names]
    return _class_join(labels, predicted.names, truth, by="name")


def join_class_ids(predicted: Sequence[int | str], truth: Categories) -> ClassJoin:
    """Join the `category_id` of a bare list.

    Raises:
        DataError: no id in common.
    """
    known = {_id(i): label for i, label in truth.label_of_id().items()}
    labels = [known.get(_id(i), -1) for i in predicted]
    return _class_join(labels, [f"id {i}" for i in predicted], truth, by="id")


def _class_join(
    labels: list[int], names: Sequence[str], truth: Categories, *, by: str
) -> ClassJoin:
    if labels and max(labels) < 0:
        shown = truth.names if by == "name" else [f"id {i}" for i in truth.ids]
        raise DataError(
            f"no class in common by {by}: the predictions have {_some(names)}, the truth has "
            f"{_some(shown)}; rename the classes of one side"
        )
    dropped = tuple(name for name, label in zip(names, labels, strict=True) if label < 0)
    reached = set(labels)
    truth_only = tuple(name for k, name in enumerate(truth.names) if k not in reached)
    return ClassJoin(np.array(labels, np.int32), dropped, truth_only)


@dataclass(frozen=True, eq=False)
class PictureJoin:
    """Pictures that both sides have.

    Attributes:
        pairs: picture of the truth and its predictions, in the order of the predictions.
        unknown: predicted pictures that the truth does not have.
        missing: pictures of the truth without predictions.
        stripped: which leading folder was left away on which side, or None.
    """

    pairs: Sequence[tuple[Picture, PredictedPicture]]
    unknown: Sequence[str]
    missing: Sequence[str]
    stripped: str | None

    def messages(self) -> list[str]:
        """What the user should know, one line each."""
        lines = [self.stripped] if self.stripped else []
        if self.unknown:
            count = f"{len(self.unknown)} predicted pictures"
            lines.append(f"{count} are left out, the truth lacks them: {_some(self.unknown)}")
        if self.missing:
            count = f"{len(self.missing)} pictures of the truth"
            lines.append(f"{count} have no predictions, all misses: {_some(self.missing)}")
        return lines


def join_pictures(file: PredictionsFile, truth: Dataset) -> PictureJoin:
    """Join by relative file name; by id where the predictions carry no names.

    Where no name matches as it stands, but all of one side do after one constant leading folder is taken from the
    other, that is done.

    Raises:
        DataError: nothing in common, or a name stands for two pictures.
    """
    if all(picture.file_name is None for picture in file.pictures):
        ids = _unique(truth.source, ((_id(p.id), p) for p in truth.pictures))
        found = _unique(file.source, ((_id(p.image_id), p) for p in file.pictures))
        return _picture_join(file, ids, found, None)
    known = _unique(truth.source, ((_key(p.file_name), p) for p in truth.pictures))
    predicted = _unique(file.source, ((_predicted_key(p), p) for p in file.pictures))
    if not known.keys() & predicted.keys():
        if (depth := _folders_to_strip(known, predicted)) is not None:
            known, folder = _stripped(known, depth)
            return _picture_join(
                file, known, predicted, f"the truth's file names: left away {folder}/"
            )
        if (depth := _folders_to_strip(predicted, known)) is not None:
            predicted, folder = _stripped(predicted, depth)
            note = f"the predictions' file names: left away {folder}/"
            return _picture_join(file, known, predicted, note)
    return _picture_join(file, known, predicted, None)


def _picture_join(
    file: PredictionsFile,
    known: dict[str, Picture],
    predicted: dict[str, PredictedPicture],
    stripped: str | None,
) -> PictureJoin:
    pairs = [(known[key], picture) for key, picture in predicted.items() if key in known]
    if predicted and not pairs:
        raise DataError(
            f"{file.source}: no picture in common: the predictions have {_some(predicted)}, the truth "
            f"has {_some(known)}; predict on the annotated pictures, with the same names"
        )
    return PictureJoin(
        pairs=pairs,
        unknown=[key for key in predicted if key not in known],
        missing=[key for key in known if key not in predicted],
        stripped=stripped,
    )


def _id(value: Id) -> str:
    """Ids by their text: 7 and "7" find each other, and so do 7 and the 7.0 of data frames."""
    return str(as_id(value))


def _key(file_name: str) -> str:
    return posixpath.normpath(file_name.replace("\\", "/"))


def _predicted_key(picture: PredictedPicture) -> str:
    if picture.file_name is None:
        return f"picture {picture.image_id} (no file_name)"
    return _key(picture.file_name)


def _unique(source: Path, entries: Iterable[tuple[str, T]]) -> dict[str, T]:
    table: dict[str, T] = {}
    for key, value in entries:
        if key in table:
            raise DataError(f"{source}: two pictures are called {key}; which is meant is unclear")
        table[key] = value
    return table


def _folders_to_strip(longer: Iterable[str], other: Iterable[str]) -> int | None:
    """How many constant leading folders of `longer` must go so that every name of one side is on the other."""
    names, wanted = [name.split("/") for name in longer], set(other)
    shared = len(posixpath.commonprefix([name[:-1] for name in names]))
    for depth in range(1, shared + 1):
        rest = {"/".join(name[depth:]) for name in names}
        if rest <= wanted or wanted <= rest:
            return depth
    return None


def _stripped(table: dict[str, T], depth: int) -> tuple[dict[str, T], str]:
    folder = "/".join(next(iter(table)).split("/")[:depth])
    return {"/".join(key.split("/")[depth:]): value for key, value in table.items()}, folder


def _some(names: Iterable[object]) -> str:
    """The first few names, and how many there are."""
    rows = [str(name) for name in names]
    if not rows:
        return "none"
    more = f", … ({len(rows)} in all)" if len(rows) > _SHOWN else ""
    return ", ".join(rows[:_SHOWN]) + more
