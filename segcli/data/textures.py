"""Noise, waves and soft filters of the synthetic scenes.

Only operations that are exact on every machine: a table instead of sine, integer sums instead of float filters.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]

_TURN = 4096
_SINE = np.array([round(math.sin(2 * math.pi * k / _TURN), 6) for k in range(_TURN)], np.float32)


def wave(turns: NDArray[np.floating[Any]]) -> Field:
    """Sine of `turns` (1 = a whole period), -1..1, from a table."""
    values: Field = _SINE[(turns * _TURN).astype(np.int32) & (_TURN - 1)]
    return values


def smooth_step(x: Field, low: float, high: float) -> Field:
    """0 below `low`, 1 above `high`, an S between them."""
    t = np.clip((x - np.float32(low)) / np.float32(high - low), 0, 1)
    curve: Field = t * t * (np.float32(3) - np.float32(2) * t)
    return curve


def grains(rng: np.random.Generator, size: tuple[int, int]) -> Field:
    """Independent float32 (H, W) values of about normal spread: mean 0, deviation 1."""
    H, W = size
    raw = np.frombuffer(rng.bytes(4 * H * W), np.uint8).reshape(4, H, W)
    total = raw[0].astype(np.int16) + raw[1] + raw[2] + raw[3]
    values: Field = (total - np.int16(510)).astype(np.float32) * np.float32(1 / 147.8)
    return values


def noise(rng: np.random.Generator, size: tuple[int, int], cell: tuple[float, float]) -> Field:
    """Smooth noise 0..1: random values every `cell` (y, x) pixels, blended between; float32 (H, W)."""
    top, down = _cells(size[0], cell[0], rng.random())
    left, across = _cells(size[1], cell[1], rng.random())
    shape = int(top[-1]) + 2, int(left[-1]) + 2
    knots = np.frombuffer(rng.bytes(shape[0] * shape[1]), np.uint8).reshape(shape)
    grid: Field = knots.astype(np.float32)
    grid /= 255
    rows: Field = grid[top] + (grid[top + 1] - grid[top]) * down[:, None]
    start: Field = rows[:, left]
    blended: Field = start + (rows[:, left + 1] - start) * across
    return blended


def _cells(length: int, cell: float, phase: float) -> tuple[NDArray[np.intp], Field]:
    """Index of the knot before each pixel, and the blend towards the next, 0..1."""
    place = np.arange(length) / cell + phase
    index = np.floor(place).astype(np.intp)
    return index, smooth_step((place - index).astype(np.float32), 0, 1)


def clouds(rng: np.random.Generator, size: tuple[int, int], cell: float, octaves: int) -> Field:
    """Noise at `cell` pixels and finer, each octave half as strong; 0..1, float32 (H, W)."""
    total = np.zeros(size, np.float32)
    weight, sum_of_weights = 1.0, 0.0
    for octave in range(octaves):
        step = cell / 2**octave
        total += np.float32(weight) * noise(rng, size, (step, step))
        sum_of_weights += weight
        weight /= 2
    return total / np.float32(sum_of_weights)


def soften(values: NDArray[np.uint8], radius: int, passes: int = 2) -> Field:
    """Blur by repeated box sums; float32 of the same shape and scale, exact integers underneath.

    Args:
        values: uint8 (h, w), at most 16.
        radius: of one pass, pixels, at most 15.
        passes: 1 or 2; two give a tent that looks round.
    """
    side = 2 * radius + 1
    total = values.astype(np.float32)
    for _ in range(passes):  # sums of integers below 2**24 are exact in float32
        total = cv2.boxFilter(
            total, -1, (side, side), normalize=False, borderType=cv2.BORDER_CONSTANT
        ).astype(np.float32)
    return total / np.float32(side ** (2 * passes))
