"""Colours: far apart, the same for the same classes in every run, and the text colour that is readable on each."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from zlib import crc32

import cv2
import numpy as np
from numpy.typing import NDArray

Color = tuple[int, int, int]

# Farthest-point selection in OKLab among colours of middle lightness and strong, not neon, chroma: each colour is
# as far as can be from all before it, so the first few, and neighbours, are easiest to tell apart.
_HEX = (
    "1e87f0 c3f00f f02d1e 0f871e f069f0 0fe1e1 c3962d 964b87 f08796 4bc31e 965af0 a55a1e e12d96 b496f0 f0d269 0fa587 "
    "4bf096 5ab4f0 a51eb4 5a5ac3 c30f4b 87c378 c369b4 f0782d 78963c f096e1 c35a69 0f96c3 8778d2 c3c30f b4f096 f05a87"
)
PALETTE: tuple[Color, ...] = tuple(
    (int(h[0:2], 16), int(h[2:4], 16), int(h[4:6], 16)) for h in _HEX.split()
)
_FAR = 45.0  # CIE76 difference at which two colours are told apart at a glance


@lru_cache(maxsize=64)
def class_colors(names: tuple[str, ...]) -> tuple[Color, ...]:
    """One colour per class, by its name.

    A name's hash ranks the palette, and the name takes the best-ranked colour that is unused and far from those of
    the classes before it (the farthest, where none is far). So the same classes have the same colours in every run
    and on every machine, a name mostly keeps its colour among other classes too, and two classes share one only
    where there are more than 32.

    Args:
        names: of all classes, in the order of their labels.

    Returns:
        RGB, 0..255, one per name.
    """
    distances = _distances()
    chosen: list[int] = []
    for name in names:
        used = Counter(chosen)
        fewest = min(used[slot] for slot in range(len(PALETTE)))
        ranked = sorted(range(len(PALETTE)), key=lambda s: _hash(name, s))
        free = [slot for slot in ranked if used[slot] == fewest]
        nearest = {slot: min(distances[slot, chosen], default=_FAR) for slot in free}
        apart = (slot for slot in free if nearest[slot] >= _FAR)
        chosen.append(next(apart, max(free, key=lambda s: nearest[s])))
    return tuple(PALETTE[slot] for slot in chosen)


def instance_color(number: int) -> Color:
    """RGB of the `number`-th object (or track) of a picture; numbers that follow one another are far apart."""
    return PALETTE[number % len(PALETTE)]


def text_color(background: Color) -> Color:
    """Black or white, whichever has more contrast on `background` (RGB, 0..255), by WCAG's relative luminance."""
    black, white = (0, 0, 0), (255, 255, 255)
    dark = contrast(background, black) >= contrast(background, white)
    return black if dark else white


def contrast(one: Color, other: Color) -> float:
    """WCAG contrast ratio of two RGB colours, 1..21."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(color: Color) -> float:
    value = np.asarray(color) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


@lru_cache(maxsize=1)
def _distances() -> NDArray[np.float32]:
    """float32 (32, 32): CIE76 difference between any two palette colours."""
    rgb = np.asarray([PALETTE], np.float32) / 255
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)[0]
    distances: NDArray[np.float32] = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
    return distances


def _hash(name: str, slot: int) -> int:
    """The same in every process; names of JSON may hold half a surrogate pair."""
    return crc32(f"{name}\0{slot}".encode("utf-8", "surrogatepass"))
