"""Objects of one picture pasted onto another (Ghiasi et al. 2021, Simple Copy-Paste, section 3)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from segcli.data.augment import Paste
from segcli.data.crops import Crop, Objects, tight

_SHARE = 0.5  # of the other picture's objects


@dataclass(frozen=True, eq=False)
class Source:
    """Where pasted objects come from.

    Attributes:
        image: uint8 (H, W, 3), RGB.
        objects: in its frame.
    """

    image: NDArray[np.uint8]
    objects: Objects


@dataclass(frozen=True, eq=False)
class _Piece:
    """One object as it lands on the picture: its pixels, how far each covers the picture, and its corner."""

    pixels: NDArray[np.uint8]
    alpha: NDArray[np.uint8]
    x: int
    y: int


def paste_objects(
    image: NDArray[np.uint8], objects: Objects, source: Source, paste: Paste, ratio: float
) -> tuple[NDArray[np.uint8], Objects]:
    """Paste a seeded choice of another picture's objects.

    They keep their places relative to each other. Masks of what they cover lose those pixels; objects of which
    nothing is left are dropped.

    Args:
        image: uint8 (H, W, 3), RGB; not changed.
        objects: what is on it.
        source: the other picture.
        paste: how; see `Paste`.
        ratio: how much larger the other picture's pixels become.

    Returns:
        The new picture, and the objects of both: first what is left of the old ones, in their order.
    """
    rng = np.random.Generator(np.random.PCG64(paste.seed))
    chosen = np.flatnonzero(rng.random(len(source.objects)) < _SHARE)
    canvas, owner = image.copy(), np.zeros(image.shape[:2], np.int32)
    rects: list[tuple[int, int, int, int]] = []
    labels: list[int] = []
    for row in chosen.tolist():
        piece = _piece(source, row, paste, ratio, (image.shape[0], image.shape[1]))
        if piece is None:
            continue
        h, w = piece.alpha.shape
        region = np.s_[piece.y : piece.y + h, piece.x : piece.x + w]
        canvas[region] = _blended(canvas[region], piece)
        rects.append((piece.x, piece.y, piece.x + w, piece.y + h))
        owner[region][piece.alpha > 127] = len(rects)
        labels.append(int(source.objects.labels[row]))
    if not rects:
        return image, objects
    crops = [*_uncovered(objects, owner), *_pasted(owner, rects)]
    return canvas, Objects.of(crops, [*objects.labels.tolist(), *labels])


def _piece(
    source: Source, row: int, paste: Paste, ratio: float, size: tuple[int, int]
) -> _Piece | None:
    """One object scaled and cut to the picture of (H, W); only what lands on the picture is scaled."""
    h, w = source.objects.crops[row].shape
    x, y = source.objects.corners[row].tolist()
    pixels = source.image[y : y + h, x : x + w]
    mask = source.objects.crops[row].view(np.uint8) * np.uint8(255)
    if paste.flip:
        pixels, mask, x = pixels[:, ::-1], mask[:, ::-1], source.image.shape[1] - x - w
    across = _span(x, w, source.image.shape[1], size[1], ratio, paste.place[0])
    down = _span(y, h, source.image.shape[0], size[0], ratio, paste.place[1])
    if across is None or down is None:
        return None
    (c0, c1, x0, x1), (r0, r1, y0, y1) = across, down
    scaled = [
        _scaled(np.ascontiguousarray(values[r0:r1, c0:c1]), (x1 - x0, y1 - y0))
        for values in (pixels, mask)
    ]
    left, top = max(-x0, 0), max(-y0, 0)
    kept = np.s_[top : size[0] - y0, left : size[1] - x0]
    return _Piece(scaled[0][kept], scaled[1][kept], x0 + left, y0 + top)


def _span(
    start: int, length: int, source: int, target: int, ratio: float, place: float
) -> tuple[int, int, int, int] | None:
    """One axis: which pixels of an object are used, from 0, and onto which pixels of the picture they go.

    Args:
        start: of the object in its picture.
        length: of the object.
        source: pixels of its picture.
        target: pixels of the picture that it goes to.
        ratio: of their scales.
        place: 0..1, where the scaled source lies on the target.

    Returns:
        First and last (exclusive) of both; the second pair may reach over the edges by a pixel's size. None where
        nothing is seen.
    """
    shift = place * (target - source * ratio)
    first = max(start, int(np.floor(-shift / ratio)))
    last = min(start + length, int(np.ceil((target - shift) / ratio)))
    low, high = round(first * ratio + shift), round(last * ratio + shift)
    if last <= first or high <= low or high <= 0 or low >= target:
        return None
    return first - start, last - start, low, high


def _scaled(values: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize to (w, h): averaged where it shrinks, so that the edge has the colours of what it covers."""
    h, w = values.shape[:2]
    if (w, h) == size:
        return values
    shrinks = size[0] * size[1] < w * h
    kind = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(values, size, interpolation=kind), np.uint8)


def _blended(under: NDArray[np.uint8], piece: _Piece) -> NDArray[np.uint8]:
    alpha = piece.alpha[..., None].astype(np.float32) / 255.0
    mixed = under + (piece.pixels.astype(np.float32) - under) * alpha
    return np.rint(mixed).astype(np.uint8)


def _uncovered(objects: Objects, owner: NDArray[np.int32]) -> list[Crop | None]:
    """What is left of the picture's own objects."""
    left: list[Crop | None] = []
    for crop, (x, y) in zip(objects.crops, objects.corners.tolist(), strict=True):
        h, w = crop.shape
        covered = owner[y : y + h, x : x + w] > 0
        left.append(tight(crop & ~covered, x, y) if covered.any() else (crop, x, y))
    return left


def _pasted(owner: NDArray[np.int32], rects: list[tuple[int, int, int, int]]) -> list[Crop | None]:
    """What is left of the pasted ones: later ones cover earlier ones."""
    return [
        tight(owner[y0:y1, x0:x1] == number, x0, y0)
        for number, (x0, y0, x1, y1) in enumerate(rects, 1)
    ]
