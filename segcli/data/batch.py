"""Samples of one step as one batch, small enough to hand from a worker process to the loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segcli.data.sample import Sample
from segcli.preprocess import collate


@dataclass(frozen=True)
class Unreadable:
    """A picture whose header was fine and whose pixels are not."""

    file_name: str
    reason: str


@dataclass(frozen=True)
class Thinned:
    """A picture of which only some objects are trained on, because it has more than `max_instances`."""

    file_name: str
    objects: int
    kept: int


@dataclass(frozen=True, eq=False)
class Batch:
    """Pictures of one step; `targets` is what `MaskRCNN.forward` takes.

    Attributes:
        images: float32 (N, 3, H, W); N is smaller than the batch size where pictures were unreadable, and may be 0.
        sizes: (h, w) of each picture without padding.
        targets: one dict a picture: `boxes` float32 (G, 4), `labels` int64 (G,), `masks` uint8 (G, 58, 58), `key`
            int64 (), with several datasets `classes` bool (K + 1,), and where not all objects are trained on `others`
            float32 (I, 4).
        file_names: one a picture, for messages.
        unreadable: pictures that were left out.
        keys: the targets' keys as numbers, see `Sample.key`.
        thinned: pictures with more objects than are trained on.
    """

    images: Tensor
    sizes: list[tuple[int, int]]
    targets: list[dict[str, Tensor]]
    file_names: list[str]
    unreadable: tuple[Unreadable, ...] = ()
    keys: list[int] = field(default_factory=list)
    thinned: tuple[Thinned, ...] = ()

    def pin_memory(self) -> Batch:
        """A copy in page-locked memory, from which a GPU copies beside its work; torch's loader calls it by name."""
        targets = [{k: v.pin_memory() for k, v in target.items()} for target in self.targets]
        return replace(self, images=self.images.pin_memory(), targets=targets)

    def __getstate__(self) -> dict[str, Any]:
        """As few tensors as possible: each one costs a file descriptor on its way from a worker."""
        state = dict(self.__dict__)
        small = [{k: v.numpy() for k, v in t.items() if k != "masks"} for t in self.targets]
        masks = [t["masks"] for t in self.targets]
        state["targets"] = (small, torch.cat(masks) if masks else None, [len(m) for m in masks])
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        small, masks, counts = state["targets"]
        targets = [{k: torch.from_numpy(np.asarray(v)) for k, v in t.items()} for t in small]
        if masks is not None:
            for target, part in zip(targets, masks.split(counts), strict=True):
                target["masks"] = part
        self.__dict__.update(state, targets=targets)


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
        images, sizes = _padded(good, self.pad_multiple)
        thinned = [
            Thinned(s.file_name, len(s.boxes) + len(s.others), len(s.boxes))
            for s in good
            if s.others is not None
        ]
        return Batch(
            images=images,
            sizes=sizes,
            targets=[_target(s) for s in good],
            file_names=[s.file_name for s in good],
            unreadable=bad,
            keys=[s.key for s in good],
            thinned=tuple(thinned),
        )


def _padded(samples: Sequence[Sample], multiple: int) -> tuple[Tensor, list[tuple[int, int]]]:
    """Zero-padded to the largest picture, or to the square that large-scale jitter asks for."""
    images = [s.image for s in samples]
    side = samples[0].side
    if side is None:
        return collate(images, multiple)
    batch = images[0].new_zeros((len(images), 3, side, side))
    for row, image in enumerate(images):
        batch[row, :, : image.shape[1], : image.shape[2]] = image
    return batch, [(int(i.shape[1]), int(i.shape[2])) for i in images]


def _target(sample: Sample) -> dict[str, Tensor]:
    target = {"boxes": sample.boxes, "labels": sample.labels, "masks": sample.patches}
    target["key"] = torch.tensor(sample.key, dtype=torch.int64)
    if sample.classes is not None:
        target["classes"] = sample.classes
    if sample.others is not None:
        target["others"] = sample.others
    return target
