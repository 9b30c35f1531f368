"""`segcli train --preview`: training batches as pictures, drawn from the very tensors that the network gets."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from segcli.categories import Categories
from segcli.config import DrawConfig
from segcli.console import escape
from segcli.data.batch import Batch
from segcli.files import write_bytes
from segcli.instances import Instances
from segcli.masks import Masks
from segcli.models.conventions import Preprocess
from segcli.models.mask_targets import RIM
from segcli.overlay.labels import text_mask
from segcli.overlay.palette import instance_color
from segcli.overlay.render import draw_instances
from segcli.overlay.writing import encode_image

_LARGEST = 800  # pixels of a tile's longer side; larger pictures are shown smaller
_TEXT = 13
_GAP = 6
_BACKGROUND = 24
_STRIPES = (52, 74)  # grey values of padding
_CAPTION_TONE = 220


def write_previews(
    batches: Iterable[Batch],
    folder: Path,
    categories: Categories,
    preprocess: Preprocess,
    *,
    most: int = 8,
) -> list[Path]:
    """Write `preview-000.png`, `preview-001.png` …, one per batch.

    Args:
        batches: as training reads them; no more than `most` are taken. Those without a readable picture give no file.
        folder: made where it is absent.
        categories: the classes.
        preprocess: what the pictures went through, to be undone.
        most: batches to draw.

    Returns:
        The files.

    Raises:
        OutputError: the folder cannot be written to.
    """
    paths = []
    for number, batch in enumerate(islice(batches, most)):
        if batch.sizes:
            paths.append(folder / f"preview-{number:03d}.png")
            picture = draw_batch(batch, categories, preprocess)
            write_bytes(paths[-1], encode_image(picture, ".png"))
    return paths


def draw_batch(batch: Batch, categories: Categories, preprocess: Preprocess) -> NDArray[np.uint8]:
    """One batch as a grid: every picture with its boxes and masks, padding striped.

    Args:
        batch: one picture or more.
        categories: the classes.
        preprocess: see `write_previews`.

    Returns:
        uint8 (H, W, 3), RGB.
    """
    tiles = []
    for row, size in enumerate(batch.sizes):
        pixels = restored(batch.images[row], preprocess)
        seen = pixels[: size[0], : size[1]]
        tile = _striped(pixels.shape[:2])
        tile[: size[0], : size[1]] = _drawn(seen, batch.targets[row], categories)
        count = len(batch.targets[row]["labels"])
        name = escape(batch.file_names[row])  # last, since what does not fit is cut off
        tiles.append(_captioned(_shrunk(tile), f"{count} objects  {size[1]} x {size[0]}  {name}"))
    return _grid(tiles)


def restored(image: Tensor, preprocess: Preprocess) -> NDArray[np.uint8]:
    """Undo the normalisation.

    Args:
        image: float32 (3, h, w), the network's input.
        preprocess: its mean, std, divisor and channel order.

    Returns:
        uint8 (h, w, 3), RGB.
    """
    values = image.float().cpu().numpy().transpose(1, 2, 0)
    values = (
        values * np.asarray(preprocess.std) + np.asarray(preprocess.mean)
    ) * preprocess.divisor
    if preprocess.channel_order == "bgr":
        values = values[..., ::-1]
    pixels: NDArray[np.uint8] = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return pixels


def target_instances(target: dict[str, Tensor], size: tuple[int, int]) -> Instances:
    """A picture's targets as objects that can be drawn: masks are made from the patches.

    Args:
        target: `boxes`, `labels` and `masks`, as in `Batch.targets`.
        size: (h, w) of the picture without padding.
    """
    boxes = target["boxes"].cpu().numpy()
    corners = np.rint(boxes).astype(int)
    corners[:, 2:] = np.maximum(corners[:, 2:], corners[:, :2] + 1)  # thin ones keep a pixel
    corners = np.clip(corners, 0, (*size[::-1], *size[::-1]))
    cells = target["masks"].cpu().numpy()[:, RIM:-RIM, RIM:-RIM]
    crops = []
    for patch, (x0, y0, x1, y1) in zip(cells, corners.tolist(), strict=True):
        side = (max(x1 - x0, 1), max(y1 - y0, 1))
        mask = cv2.resize(np.ascontiguousarray(patch), side, interpolation=cv2.INTER_LINEAR) > 127
        crops.append((mask[: y1 - y0, : x1 - x0], (x0, y0)))
    labels = target["labels"].cpu().numpy().astype(np.int32) - 1
    return Instances(size, boxes.astype(np.float32), labels, masks=Masks.from_crops(crops, size))


def _drawn(
    pixels: NDArray[np.uint8], target: dict[str, Tensor], categories: Categories
) -> NDArray[np.uint8]:
    """Masks and classes by the overlay's own drawing, and the boxes, which it leaves out where there are masks."""
    instances = target_instances(target, (pixels.shape[0], pixels.shape[1]))
    # with one class its name on every object would only hide them
    style = DrawConfig(color_by="instance", opacity=0.3, labels=len(categories) > 1)
    canvas = draw_instances(pixels, instances, categories, style)
    for number, (x0, y0, x1, y1) in enumerate(np.rint(instances.boxes).astype(int).tolist()):
        cv2.rectangle(canvas, (x0, y0), (x1 - 1, y1 - 1), instance_color(number), 1)
    return canvas


def _striped(size: tuple[int, ...]) -> NDArray[np.uint8]:
    """Diagonal stripes, which no photograph has: here the network sees padding."""
    down, across = np.mgrid[: size[0], : size[1]]
    dark = ((down + across) // 8) % 2 == 0
    grey = np.where(dark, *_STRIPES).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _shrunk(tile: NDArray[np.uint8]) -> NDArray[np.uint8]:
    factor = _LARGEST / max(tile.shape[:2])
    if factor >= 1:
        return tile
    size = (max(round(tile.shape[1] * factor), 1), max(round(tile.shape[0] * factor), 1))
    return np.asarray(cv2.resize(tile, size, interpolation=cv2.INTER_AREA), np.uint8)


def _captioned(tile: NDArray[np.uint8], text: str) -> NDArray[np.uint8]:
    """A line of text under a picture, cut to its width."""
    written = text_mask(text, _TEXT)[:, : tile.shape[1]]
    strip = np.full((written.shape[0] + 4, tile.shape[1], 3), _BACKGROUND, np.uint8)
    place = strip[2 : 2 + written.shape[0], : written.shape[1]]
    share = written[..., None] / 255.0
    place[...] = np.rint(place * (1 - share) + _CAPTION_TONE * share)
    return np.concatenate((tile, strip))


def _grid(tiles: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Tiles of one size in as square a grid as they give."""
    h, w = (side + _GAP for side in tiles[0].shape[:2])
    columns = min(max(round(math.sqrt(len(tiles) * h / w)), 1), len(tiles))
    rows = -(-len(tiles) // columns)
    canvas = np.full((rows * h + _GAP, columns * w + _GAP, 3), _BACKGROUND, np.uint8)
    for number, tile in enumerate(tiles):
        y, x = _GAP + number // columns * h, _GAP + number % columns * w
        canvas[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
    return canvas
