"""A dataset as a torch dataset: reads, changes and prepares the picture that a ticket names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset as TorchDataset

from segcli.annotations import Picture
from segcli.data.augment import choose
from segcli.data.batch import Batch, Thinned, Unreadable, make_batch
from segcli.data.copy_paste import Source
from segcli.data.crops import objects_of
from segcli.data.packed import PackedPictures
from segcli.data.sample import Sample, make_sample, sample_key
from segcli.errors import ImageError
from segcli.images import read_image
from segcli.models.conventions import Preprocess
from segcli.preprocess import scale_for

__all__ = [
    "Batch", "Sample", "Thinned", "Ticket", "TrainingSet", "Unreadable", "box_sides", "make_batch", "make_sample",
]  # fmt: skip


@dataclass(frozen=True)
class Ticket:
    """Which picture, in which epoch and step of it: all that a worker needs to know.

    Attributes:
        epoch: counts from 0.
        index: of the picture in the dataset.
        batch: of the step within the epoch, over all processes.
        partner: index of the picture whose objects may be pasted in; None = none.
        repeat: how often the picture came up before in this epoch.
    """

    epoch: int
    index: int
    batch: int = 0
    partner: int | None = None
    repeat: int = 0


_Decoded = dict[int, NDArray[np.uint8] | Unreadable]  # by index of the picture


class TrainingSet(TorchDataset[Sample | Unreadable]):
    """Reads, augments and prepares pictures; what a ticket gives depends on nothing but the ticket.

    Args:
        pictures: with paths; crowd annotations are ignored. Packed here unless they are packed already.
        preprocess: the network's sizes, mean and std.
        augment: names, see `segcli.data.augment`.
        seed: of the augmentations and of the samples' keys.
        max_instances: most objects of a picture in one step; None = no limit.
        classes: bool (D, K + 1), which classes each dataset tells of, where there are several; see
            `segcli.data.joined`.
    """

    def __init__(
        self,
        pictures: Sequence[Picture],
        preprocess: Preprocess,
        *,
        augment: Sequence[str],
        seed: int,
        max_instances: int | None = None,
        classes: NDArray[np.bool_] | None = None,
    ) -> None:
        self.pictures = (
            pictures if isinstance(pictures, PackedPictures) else PackedPictures.of(pictures)
        )
        self.preprocess = preprocess
        self.augment = tuple(augment)
        self.seed = seed
        self.max_instances = max_instances
        self.classes = None if classes is None else torch.from_numpy(classes)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, ticket: Ticket) -> Sample | Unreadable:
        return self._sample(ticket, {})

    def __getitems__(self, tickets: list[Ticket]) -> list[Sample | Unreadable]:
        """The samples of one batch; a picture that is also another one's partner is decoded once."""
        decoded: _Decoded = {}
        return [self._sample(ticket, decoded) for ticket in tickets]

    def _sample(self, ticket: Ticket, decoded: _Decoded) -> Sample | Unreadable:
        picture = self.pictures[ticket.index]
        image = self._image(ticket.index, picture, decoded)
        if isinstance(image, Unreadable):
            return image
        change = choose(
            self.augment, seed=self.seed, epoch=ticket.epoch, index=ticket.index,
            batch=ticket.batch, repeat=ticket.repeat,
        )  # fmt: skip
        place = (ticket.epoch, ticket.index, ticket.batch, ticket.repeat)
        sample = make_sample(
            picture, image, change, self.preprocess,
            other=None if change.paste is None else self._source(ticket, decoded),
            max_instances=self.max_instances, key=sample_key(self.seed, *place),
        )  # fmt: skip
        return replace(sample, classes=self._classes_of(ticket.index))

    def _image(
        self, index: int, picture: Picture, decoded: _Decoded
    ) -> NDArray[np.uint8] | Unreadable:
        if index in decoded:
            return decoded[index]
        image = _read(picture)
        if "copy-paste" in self.augment:  # nothing else looks at a picture twice
            decoded[index] = image
        return image

    def _source(self, ticket: Ticket, decoded: _Decoded) -> Source | None:
        """The picture to paste from. One that cannot be read is named when its own turn comes.

        Objects of another dataset are not pasted: this one may not tell of their classes.
        """
        index = ticket.partner
        if index is None:
            return None
        if self.pictures.dataset_of(index) != self.pictures.dataset_of(ticket.index):
            return None
        picture = self.pictures[index]
        image = self._image(index, picture, decoded)
        return None if isinstance(image, Unreadable) else Source(image, objects_of(picture))

    def _classes_of(self, index: int) -> torch.Tensor | None:
        return None if self.classes is None else self.classes[self.pictures.dataset_of(index)]


def _read(picture: Picture) -> NDArray[np.uint8] | Unreadable:
    assert picture.path is not None
    try:
        return read_image(picture.path, raw_pixels=picture.raw_pixels)
    except ImageError as error:  # a worker process cannot warn; the loop does
        return Unreadable(picture.file_name, str(error))


def box_sides(pictures: PackedPictures, preprocess: Preprocess) -> list[float]:
    """sqrt(width × height) of every annotated box that is no crowd's, in pixels of the network's input."""
    scales = [scale_for((int(h), int(w)), preprocess) for h, w in pictures.column("size")]
    scale = np.repeat(scales, np.diff(pictures.column("annotation_ends")))
    bbox = pictures.column("bbox")
    sides = np.sqrt(bbox[:, 2] * bbox[:, 3]) * scale
    return [float(side) for side in sides[pictures.column("crowd") == 0]]
