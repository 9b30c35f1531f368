"""One picture as the network's training input: pixels, boxes, labels and mask patches after one change."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segcli.annotations import Picture
from segcli.data.augment import Change
from segcli.data.color import recolored
from segcli.data.copy_paste import Source, paste_objects
from segcli.data.crops import Objects, objects_of
from segcli.data.framing import Framing, framing, paste_ratio
from segcli.data.patches import coverage_patches
from segcli.models.conventions import Preprocess
from segcli.preprocess import prepare

_LEAST_SIDE = (
    1.0  # pixels of the input; thinner objects are left out where a change cuts or shrinks
)


@dataclass(frozen=True, eq=False)
class Sample:
    """One picture for training.

    Attributes:
        image: float32 (3, h, w), normalised.
        boxes: float32 (G, 4), xyxy in pixels of `image`, tight on the masks.
        labels: int64 (G,), from 1.
        patches: uint8 (G, 58, 58), see `segcli.models.mask_targets`.
        file_name: for messages.
        key: of the random choices that losses make for this picture in this step, 0..2⁶³ − 1.
        side: the batch is padded to a square of this many pixels; None = to its largest picture.
        others: float32 (I, 4), boxes likewise of the objects that are not among `boxes` because there are more than
            `max_instances`; None = all are.
        classes: bool (K + 1,), whether the picture's dataset tells of each class, background in front; None = of all.
    """

    image: Tensor
    boxes: Tensor
    labels: Tensor
    patches: Tensor
    file_name: str
    key: int = 0
    side: int | None = None
    others: Tensor | None = None
    classes: Tensor | None = None


def sample_key(*numbers: int) -> int:
    """A hash of integers as an integer of 63 bits, the same on every machine."""
    packed = struct.pack(f"<{len(numbers)}q", *numbers)
    digest = hashlib.blake2b(packed, digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def make_sample(
    picture: Picture,
    image: NDArray[np.uint8],
    change: Change,
    preprocess: Preprocess,
    *,
    other: Source | None = None,
    max_instances: int | None = None,
    key: int = 0,
) -> Sample:
    """Apply one change to a picture and its annotations.

    Args:
        picture: annotations in the frame of `image`.
        image: uint8 (H, W, 3), RGB, upright; not changed.
        change: what to do.
        preprocess: the network's sizes, mean and std.
        other: picture whose objects are pasted where `change.paste` asks for it.
        max_instances: most objects to keep; which ones is decided by `key`.
        key: see `Sample`.
    """
    frame = framing((image.shape[0], image.shape[1]), change, preprocess)
    image, objects = _framed(image, objects_of(picture), frame)
    if change.paste is not None and other is not None:
        size = (other.image.shape[0], other.image.shape[1])
        ratio = paste_ratio(size, change, preprocess, frame.scale)
        image, objects = paste_objects(image, objects, other, change.paste, ratio)
    if change.color is not None:
        image = recolored(image, change.color)
    kept, rest = _at_most(objects, max_instances, key)
    prepared = prepare(_turned(image, change), preprocess, scale=frame.scale)
    size = (image.shape[0], image.shape[1])
    boxes = _scaled_boxes(kept, size, change, prepared.size)
    others = None if rest is None else _scaled_boxes(rest, size, change, prepared.size)
    # without these changes thin objects are as annotated
    cuts = change.crop or change.lsj or change.paste
    rows = _thick_enough(boxes) if cuts else np.arange(len(boxes))
    patches = _turned_patches(coverage_patches([kept.crops[i] for i in rows]), change)
    return Sample(
        image=prepared.tensor,
        boxes=torch.from_numpy(boxes[rows]),
        labels=torch.from_numpy(kept.labels[rows]),
        patches=torch.from_numpy(patches.copy()),  # torch takes no flipped views
        file_name=picture.file_name,
        key=key,
        side=frame.side,
        others=None if others is None else torch.from_numpy(others),
    )


def _framed(
    image: NDArray[np.uint8], objects: Objects, frame: Framing
) -> tuple[NDArray[np.uint8], Objects]:
    """The window of a picture and what is seen in it."""
    x0, y0, x1, y1 = frame.window
    if (x0, y0, x1, y1) == (0, 0, image.shape[1], image.shape[0]):
        return image, objects
    return image[y0:y1, x0:x1], objects.cut(frame.window)


def _at_most(objects: Objects, most: int | None, key: int) -> tuple[Objects, Objects | None]:
    """A seeded choice of objects, in their order, and the rest of them; None where they are all chosen."""
    if most is None or len(objects) <= most:
        return objects, None
    order = np.random.Generator(np.random.PCG64(key)).permutation(len(objects))
    return objects.take(np.sort(order[:most])), objects.take(np.sort(order[most:]))


def _turned(image: NDArray[np.uint8], change: Change) -> NDArray[np.uint8]:
    """Flips, then quarter turns; a view where it can be."""
    image = image[:, ::-1] if change.flip else image
    image = image[::-1] if change.vflip else image
    image = np.rot90(image, change.turns)
    # numpy leaves a negative stride on a side of one pixel, where it changes nothing, and torch refuses it
    return image.copy() if 1 in image.shape else image


def _turned_boxes(
    boxes: NDArray[np.float32], size: tuple[int, int], change: Change
) -> NDArray[np.float32]:
    """The same for boxes (G, 4) in a picture of (H, W)."""
    H, W = size
    x0, y0, x1, y1 = boxes.T
    if change.flip:
        x0, x1 = W - x1, W - x0
    if change.vflip:
        y0, y1 = H - y1, H - y0
    for _ in range(
        change.turns
    ):  # a quarter turn counter-clockwise: x becomes y, y what x was from the right
        x0, y0, x1, y1 = y0, W - x1, y1, W - x0
        H, W = W, H
    turned: NDArray[np.float32] = np.stack((x0, y0, x1, y1), axis=1).astype(np.float32, copy=False)
    return turned


def _scaled_boxes(
    objects: Objects, size: tuple[int, int], change: Change, prepared: tuple[int, int]
) -> NDArray[np.float32]:
    """Boxes in the network's input of (h, w), made from a picture of `size` (H, W)."""
    boxes = _turned_boxes(objects.boxes(), size, change)
    H, W = size if change.turns % 2 == 0 else size[::-1]
    ratio = np.array([prepared[1] / W, prepared[0] / H] * 2, np.float32)
    scaled: NDArray[np.float32] = boxes * ratio
    return scaled


def _thick_enough(boxes: NDArray[np.float32]) -> NDArray[np.int64]:
    return np.flatnonzero((boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf) >= _LEAST_SIDE)


def _turned_patches(patches: NDArray[np.uint8], change: Change) -> NDArray[np.uint8]:
    """The same for patches (G, side, side)."""
    patches = patches[:, :, ::-1] if change.flip else patches
    patches = patches[:, ::-1] if change.vflip else patches
    return np.rot90(patches, change.turns, axes=(1, 2))
