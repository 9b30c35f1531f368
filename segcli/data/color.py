"""Brightness, contrast, saturation and hue, in one pass over the pixels."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from segcli.data.augment import ColorChange

_LUMA = np.array([0.299, 0.587, 0.114])
# RGB to YIQ (NTSC, 1953): grey, and two axes of colour in which another hue is a rotation
_YIQ = np.array(
    [[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]], np.float64
)


def recolored(image: NDArray[np.uint8], change: ColorChange) -> NDArray[np.uint8]:
    """Change a picture's tones.

    Every change is linear in R, G and B (the hue turns around the grey axis of YIQ), so that one 3 × 4 matrix does it
    all and rounds once.

    Args:
        image: uint8 (H, W, 3), RGB; not changed.
        change: what to do; contrast is around the picture's mean grey.

    Returns:
        uint8 (H, W, 3), RGB; a new array.
    """
    turn = 2.0 * math.pi * change.hue
    rotation = np.array(
        [[1.0, 0.0, 0.0], [0.0, math.cos(turn), -math.sin(turn)], [0.0, math.sin(turn), math.cos(turn)]]
    )  # fmt: skip
    hue = np.linalg.inv(_YIQ) @ rotation @ _YIQ
    saturation = change.saturation * np.eye(3) + (1 - change.saturation) * np.tile(_LUMA, (3, 1))
    grey = float(_LUMA @ np.asarray(cv2.mean(image)[:3])) * change.brightness
    matrix = change.contrast * change.brightness * (hue @ saturation)
    offset = np.full((3, 1), (1 - change.contrast) * grey)
    changed = cv2.transform(np.ascontiguousarray(image), np.hstack((matrix, offset)))
    return np.asarray(changed, np.uint8)
