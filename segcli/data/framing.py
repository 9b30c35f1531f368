"""Which window of a picture the network sees, and how large."""

from __future__ import annotations

import math
from dataclasses import dataclass

from segcli.data.augment import Change, Place
from segcli.models.conventions import Preprocess
from segcli.preprocess import scale_for

Window = tuple[int, int, int, int]


@dataclass(frozen=True)
class Framing:
    """What of a picture is used.

    Attributes:
        window: x0, y0, x1, y1 in pixels of the picture.
        scale: pixels of the network's input per pixel of the picture.
        side: the picture lies in a square of this many pixels of the input; None = as large as it comes out.
    """

    window: Window
    scale: float
    side: int | None = None


def lsj_side(preprocess: Preprocess) -> int:
    """Side of the square of large-scale jitter: as many pixels as min_size × max_size, 1024 for 800 and 1333."""
    step = preprocess.pad_multiple
    return max(round(math.sqrt(preprocess.min_size * preprocess.max_size) / step), 1) * step


def framing(size: tuple[int, int], change: Change, preprocess: Preprocess) -> Framing:
    """From numbers without unit to pixels of one picture.

    Args:
        size: (H, W) of the picture.
        change: what to do with it.
        preprocess: the network's sizes.
    """
    H, W = size
    if change.lsj is not None:
        side = lsj_side(preprocess)
        wanted = jittered_scale(size, change.lsj.scale, preprocess)
        scale = min(
            max(wanted, 1.0 / min(size)), side
        )  # a row of pixels stays one, one pixel stays in the square
        # pixels that fit into the square; 1e-9 against a quotient that comes out just below a whole number
        fits = max(math.floor(side / scale + 1e-9), 1)
        return Framing(_window(size, (min(H, fits), min(W, fits)), change.lsj.place), scale, side)
    seen = size
    if change.crop is not None:
        seen = (max(round(H * change.crop.side), 1), max(round(W * change.crop.side), 1))
    place = (0.0, 0.0) if change.crop is None else change.crop.place
    return Framing(_window(size, seen, place), scale_for(seen, preprocess) * change.scale)


def jittered_scale(size: tuple[int, int], jitter: float, preprocess: Preprocess) -> float:
    """Pixels of the input per pixel of a picture whose longer side is to be `jitter` × the square's."""
    return jitter * lsj_side(preprocess) / max(size)


def paste_ratio(
    size: tuple[int, int], change: Change, preprocess: Preprocess, scale: float
) -> float:
    """How much larger objects of another picture become when they are pasted.

    Args:
        size: (H, W) of the other picture.
        change: of the picture that they are pasted on; with `paste`.
        preprocess: the network's sizes.
        scale: of the picture that they are pasted on, as in `Framing`.
    """
    assert change.paste is not None
    if change.lsj is not None:
        return jittered_scale(size, change.paste.jitter, preprocess) / scale
    return scale_for(size, preprocess) * change.scale / scale


def _window(size: tuple[int, int], seen: tuple[int, int], place: Place) -> Window:
    x = round(place[0] * (size[1] - seen[1]))
    y = round(place[1] * (size[0] - seen[0]))
    return x, y, x + seen[1], y + seen[0]
