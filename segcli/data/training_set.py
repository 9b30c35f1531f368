"""Pictures and annotations as the network's training input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from segcli.annotations import Dataset, Picture
from segcli.data.augment import Change, choose
from segcli.data.patches import coverage_patch
from segcli.errors import ImageError
from segcli.images import read_image
from segcli.models.conventions import Preprocess
from segcli.models.mask_targets import PATCH, RIM
from segcli.preprocess import collate, prepare, scale_for


@dataclass(frozen=True, eq=False)
class Sample:
    """One picture for training.

    Attributes:
        image: float32 (3, h, w), normalised.
        boxes: float32 (G, 4), xyxy in pixels of `image`, tight on the masks.
        labels: int64 (G,), from 1.
        patches: uint8 (G, 58, 58), see `segcli.models.mask_targets`.
        file_name: for messages.
    """

    image: Tensor
    boxes: Tensor
    labels: Tensor
    patches: Tensor
    file_name: str


@dataclass(frozen=True)
class Unreadable:
    """A picture whose header was fine and whose pixels are not."""

    file_name: str
    reason: str


@dataclass(frozen=True, eq=False)
class Batch:
    """Pictures of one step; `targets` is what `MaskRCNN.forward` takes.

    Attributes:
        images: float32 (N, 3, H, W); N is smaller than the batch size where pictures were unreadable, and may be 0.
        sizes: (h, w) of each picture without padding.
        targets: one dict a picture.
        file_names: one a picture, for messages.
        unreadable: pictures that were left out.
    """

    images: Tensor
    sizes: list[tuple[int, int]]
    targets: list[dict[str, Tensor]]
    file_names: list[str]
    unreadable: tuple[Unreadable, ...] = ()


@dataclass(frozen=True)
class Ticket:
    """Which picture, in which epoch and step of it: all that a worker needs to know."""

    epoch: int
    index: int
    batch: int = 0


class TrainingSet(TorchDataset[Sample | Unreadable]):
    """Reads, augments and prepares pictures.

    Args:
        pictures: with paths; crowd annotations are ignored.
        preprocess: the network's sizes, mean and std.
        augment: names, see `segcli.data.augment`.
        seed: of the augmentations.
    """

    def __init__(
        self,
        pictures: Sequence[Picture],
        preprocess: Preprocess,
        *,
        augment: Sequence[str],
        seed: int,
    ) -> None:
        self.pictures = tuple(pictures)
        self.preprocess = preprocess
        self.augment = tuple(augment)
        self.seed = seed

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, ticket: Ticket) -> Sample | Unreadable:
        picture = self.pictures[ticket.index]
        assert picture.path is not None
        change = choose(
            self.augment,
            seed=self.seed,
            epoch=ticket.epoch,
            index=ticket.index,
            batch=ticket.batch,
        )
        try:
            image = read_image(picture.path, raw_pixels=picture.raw_pixels)
        except ImageError as error:  # a worker process cannot warn; the loop does
            return Unreadable(picture.file_name, str(error))
        return make_sample(picture, image, change, self.preprocess)


def make_sample(
    picture: Picture, image: NDArray[np.uint8], change: Change, preprocess: Preprocess
) -> Sample:
    """Apply one change to a picture and its annotations.

    Args:
        picture: annotations in the frame of `image`.
        image: uint8 (H, W, 3), RGB, upright.
        change: flip and scale.
        preprocess: the network's sizes, mean and std.
    """
    H, W = image.shape[:2]
    if change.flip:
        image = image[:, ::-1]
    prepared = prepare(image, preprocess, scale=scale_for((H, W), preprocess) * change.scale)
    boxes, labels, patches = _objects(picture)
    if change.flip:
        boxes = np.stack((W - boxes[:, 2], boxes[:, 1], W - boxes[:, 0], boxes[:, 3]), axis=1)
        patches = patches[:, :, ::-1]
    ratio = np.array([prepared.size[1] / W, prepared.size[0] / H] * 2, np.float32)
    return Sample(
        image=prepared.tensor,
        boxes=torch.from_numpy(boxes * ratio),
        labels=torch.from_numpy(labels),
        patches=torch.from_numpy(
            patches.copy()
        ),  # torch takes no flipped views, empty ones neither
        file_name=picture.file_name,
    )


def _objects(
    picture: Picture,
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.uint8]]:
    """Tight boxes, labels from 1 and patches of the objects that have pixels."""
    boxes, labels, patches = [], [], []
    for annotation in picture.annotations:
        if annotation.iscrowd:
            continue
        mask = annotation.mask(picture.size)
        crop, _ = mask.crop(0)
        if crop.size:
            boxes.append(mask.boxes()[0])
            labels.append(annotation.label + 1)
            patches.append(coverage_patch(crop))
    side = PATCH + 2 * RIM
    return (
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(labels, np.int64),
        np.array(patches, np.uint8).reshape(-1, side, side),
    )


def make_batch(pad_multiple: int) -> Callable[[list[Sample | Unreadable]], Batch]:
    """The collate function of a loader."""
    return _Collate(pad_multiple)


@dataclass(frozen=True)
class _Collate:
    """A class, because worker processes must be able to pickle it."""

    pad_multiple: int

    def __call__(self, samples: list[Sample | Unreadable]) -> Batch:
        good = [s for s in samples if isinstance(s, Sample)]
        bad = tuple(s for s in samples if isinstance(s, Unreadable))
        if not good:
            return Batch(torch.zeros(0, 3, 0, 0), [], [], [], bad)
        images, sizes = collate([s.image for s in good], self.pad_multiple)
        targets = [{"boxes": s.boxes, "labels": s.labels, "masks": s.patches} for s in good]
        return Batch(images, sizes, targets, [s.file_name for s in good], bad)


def box_sides(dataset: Dataset, preprocess: Preprocess) -> list[float]:
    """sqrt(width × height) of every annotated box, in pixels of the network's input."""
    sides = []
    for picture in dataset.pictures:
        scale = scale_for(picture.size, preprocess)
        for annotation in picture.annotations:
            if not annotation.iscrowd:
                sides.append(float(np.sqrt(annotation.bbox[2] * annotation.bbox[3])) * scale)
    return sides
