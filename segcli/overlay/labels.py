"""Labels: text as coverage masks in any script, and where on the picture each one goes."""

from __future__ import annotations

import math
import unicodedata
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from segcli.console import escape

_LONGEST = 40  # characters of a class name that are shown
_MAY_COVER = 0.08  # share of a label that may lie on others
_NOT_A_CHARACTER = "\uffff"  # drawn as the font's "unknown" box


def label_text(name: str, score: float | None) -> str:
    """What is written on an object: its class, cut to 40 characters, and its score."""
    shown = escape(name)
    if len(shown) > _LONGEST:
        shown = shown[: _LONGEST - 2] + ".."
    return shown if score is None else f"{shown} {score:.2f}"


@lru_cache(maxsize=4096)
def text_mask(text: str, size: int) -> NDArray[np.uint8]:
    r"""Draw text.

    Pillow's own font holds ASCII. What it cannot draw is drawn with OpenCV 5's font of all scripts, or, with an older
    OpenCV, written without accents and as \u escapes.

    Args:
        text: one line.
        size: height of the font in pixels.

    Returns:
        uint8 (h, w), coverage 0..255; h depends on `size` alone where Pillow draws.
    """
    if all(_has_glyph(c) for c in text):
        return _draw_pillow(text, size)
    if hasattr(cv2, "FontFace"):
        return _draw_opencv(text, size)
    return _draw_pillow(to_ascii(text), size)


def to_ascii(text: str) -> str:
    r"""Text without accents, other characters as \u escapes."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return plain.encode("ascii", "backslashreplace").decode("ascii")


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


@lru_cache(maxsize=1024)
def _has_glyph(character: str) -> bool:
    font = _font(16)
    if character.isspace():
        return True
    return bytes(font.getmask(character)) != bytes(font.getmask(_NOT_A_CHARACTER))


def _draw_pillow(text: str, size: int) -> NDArray[np.uint8]:
    font = _font(size)
    text = text.replace(" ", "  ")  # this font's space is so narrow that words run together
    _, top, _, bottom = font.getbbox("Ag|")
    canvas = Image.new("L", (max(1, math.ceil(font.getlength(text))), int(bottom - top)))
    ImageDraw.Draw(canvas).text((0, -top), text, fill=255, font=font)
    return np.array(canvas)


def _draw_opencv(text: str, size: int) -> NDArray[np.uint8]:
    module: Any = cv2  # FontFace came with OpenCV 5; older type stubs do not know it
    face = module.FontFace("uni")
    canvas = np.zeros((3 * size, (len(text) + 2) * 2 * size), np.uint8)
    module.putText(canvas, text, (size, 2 * size), (255, 255, 255), face, size)
    columns = np.flatnonzero(canvas.any(axis=0))
    right = columns[-1] + 1 if columns.size else size + 1
    return canvas[size : 2 * size + math.ceil(size / 4), size:right]


class Placer:
    """Finds a place for each label: at its object, inside the picture, and not on other labels.

    Attributes:
        picture: (H, W) in pixels.
        boxes: float (N, 4), xyxy of all objects, so that labels keep off small ones.
    """

    def __init__(self, picture: tuple[int, int], boxes: NDArray[np.float32]) -> None:
        self.picture = picture
        self.boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
        self._taken: list[tuple[float, float, float, float]] = []

    def place(self, box: NDArray[np.float32], size: tuple[int, int]) -> tuple[int, int] | None:
        """Top-left pixel for a label at an object; None where it would hide another label.

        Args:
            box: float (4,), xyxy of the object in pixels.
            size: (h, w) of the label in pixels.

        Returns:
            (x, y), inside the picture as far as the label fits.
        """
        places = self._candidates(box, size)
        h, w = size
        rects = np.concatenate([places, places + np.array([w, h])], axis=1)
        on_labels = _overlap(rects, np.asarray(self._taken, np.float64).reshape(-1, 4)) / (h * w)
        areas = (self.boxes[:, 2:] - self.boxes[:, :2]).prod(axis=1)
        small = self.boxes[areas < 6 * h * w]
        on_objects = _overlap(rects, small) / (h * w)
        best = int((4 * on_labels + on_objects + 0.01 * np.arange(len(rects))).argmin())
        if on_labels[best] > _MAY_COVER:
            return None
        x0, y0, x1, y1 = rects[best]
        self._taken.append((x0 - 1, y0 - 1, x1 + 1, y1 + 1))  # labels do not touch
        return int(places[best, 0]), int(places[best, 1])

    def _candidates(self, box: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float64]:
        """float64 (8, 2): top-left corners to try, the best first, moved into the picture."""
        x0, y0, x1, y1 = (float(v) for v in box)
        (H, W), (h, w) = self.picture, size
        middle = (x0 + x1 - w) / 2
        tries = [
            (x0, y0 - h),  # on top of the box, flush left
            (x0, y1),  # under it
            (x1 - w, y0 - h),
            (x1 - w, y1),
            (x1, y0),  # beside it
            (x0 - w, y0),
            (x0, y0),  # inside
            (middle, (y0 + y1 - h) / 2),
        ]
        if y1 - y0 > 4 * h and x1 - x0 > 1.5 * w:  # a big object has room for its label
            tries.insert(1, tries.pop(6))
        corners = np.round(np.array(tries))
        return np.clip(corners, 0, (max(0, W - w), max(0, H - h)))


def _overlap(rects: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64 (K,): area of each rectangle (xyxy) that others cover, counted as often as covered."""
    low = np.maximum(rects[:, None, :2], others[None, :, :2])
    high = np.minimum(rects[:, None, 2:], others[None, :, 2:])
    covered: NDArray[np.float64] = (high - low).clip(0).prod(axis=2).sum(axis=1)
    return covered
