"""Outlines of the synthetic classes, and their rasterisation with holes and smooth edges.

Vertices are rounded to a fraction of a sub-pixel and filled by plain arithmetic, so that the same numbers give
the same masks on every machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Loop = NDArray[np.float64]  # (P, 2): x, y in the shape's own frame, within about 1 of the origin
Loops = tuple[Loop, ...]  # the outer one first, then holes

FINE = 4  # sub-pixels along a side
STEPS = 16  # places of a vertex within a sub-pixel


@dataclass(frozen=True)
class Pose:
    """Where and how large a shape lies on the picture.

    Attributes:
        scale: pixels per unit of the shape's own frame.
        turn: rotation in turns (1 = 360°), clockwise on the screen.
        squeeze: factor on the shape's own y axis, as if it were tilted.
        shift: (x, y) of the origin within its pixel, 0..1.
    """

    scale: float
    turn: float
    squeeze: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, eq=False)
class Sprite:
    """A shape on its own small canvas.

    Attributes:
        coverage: uint8 (h, w), 0..16 sixteenths of the pixel that the shape fills.
        u: float32 (h, w), each pixel centre's x in the shape's own frame.
        v: float32 (h, w), likewise y.
        origin: (x, y) of the shape's origin on the canvas, whole pixels.
        scale: pixels per unit.
        mask: bool (h, w), pixels of which the shape fills at least half.
        pixels: how many these are.
    """

    coverage: NDArray[np.uint8]
    u: NDArray[np.float32]
    v: NDArray[np.float32]
    origin: tuple[int, int]
    scale: float
    mask: NDArray[np.bool_]
    pixels: int


def direction(turn: float) -> tuple[float, float]:
    """(x, y) of a unit vector at `turn` (1 = 360°), free of the last bits in which libraries differ."""
    angle = 2 * math.pi * turn
    return round(math.cos(angle), 9), round(math.sin(angle), 9)


def washer(rng: np.random.Generator) -> Loops:
    """A flat ring."""
    return circle(1.0, 48), circle(rng.uniform(0.42, 0.58), 40)


def gear(rng: np.random.Generator) -> Loops:
    """A toothed wheel with a bore."""
    teeth = int(rng.integers(7, 10))
    root = rng.uniform(0.78, 0.82)
    profile = ((-0.27, root), (-0.15, 1.0), (0.15, 1.0), (0.27, root))
    rim = [
        [radius * c for c in direction((tooth + at) / teeth)]
        for tooth in range(teeth)
        for at, radius in profile
    ]
    return np.array(rim), circle(rng.uniform(0.24, 0.32), 32)


def bolt(rng: np.random.Generator) -> Loops:
    """A hexagon bolt from the side: the head to the left, the thread to the right."""
    neck, head, shaft = rng.uniform(-0.36, -0.26), rng.uniform(0.6, 0.68), rng.uniform(0.33, 0.38)
    half = [(-0.85, head - 0.12), (-0.75, head), (neck, head), (neck, shaft)]
    half += [(0.8, shaft), (0.9, shaft - 0.12)]
    mirrored = [(x, -y) for x, y in reversed(half)]
    return (np.array(half + mirrored),)


def star(rng: np.random.Generator) -> Loops:
    """A starfish: five rounded arms."""
    inner = rng.uniform(0.4, 0.47)
    radii = [1.06 if k % 2 == 0 else inner for k in range(10)]
    corners = [[r * c for c in direction(k / 10)] for k, r in enumerate(radii)]
    return (round_off(round_off(np.array(corners))),)


def leaf(rng: np.random.Generator) -> Loops:
    """A leaf with a saw edge: the stem to the left, the tip to the right."""
    width, belly = rng.uniform(0.5, 0.6), rng.uniform(0.7, 0.95)
    places = np.linspace(0, 1, 25)
    swell = places**belly * (1 - places) ** 0.9
    half = width * swell / swell.max()
    half[2:-2:2] *= 0.86  # the saw edge
    half = np.maximum(half, 0.035)
    x = -0.8 + 1.75 * places
    upper = np.stack([x, half], axis=1)
    stem = np.array([[-1.0, -0.04], [-1.0, 0.04]])
    return (np.concatenate([stem, upper, upper[::-1] * [1, -1]]),)


def circle(radius: float, points: int) -> Loop:
    """A regular polygon that passes for a circle, (points, 2)."""
    return radius * _unit_circle(points)


@cache
def _unit_circle(points: int) -> Loop:
    return np.array([direction(k / points) for k in range(points)])


def round_off(loop: Loop) -> Loop:
    """Cut every corner at a quarter of its sides: (P, 2) to (2P, 2)."""
    following = np.roll(loop, -1, axis=0)
    cut = np.stack([0.75 * loop + 0.25 * following, 0.25 * loop + 0.75 * following], axis=1)
    return cut.reshape(-1, 2)


def area(loops: Loops) -> float:
    """Area in square units: the outer loop less the holes."""
    sizes = [_shoelace(loop) for loop in loops]
    return sizes[0] - sum(sizes[1:])


def _shoelace(loop: Loop) -> float:
    following = np.roll(loop, -1, axis=0)
    return abs(float(np.sum(loop[:, 0] * following[:, 1] - loop[:, 1] * following[:, 0]))) / 2


def rasterise(loops: Loops, pose: Pose, margin: int) -> Sprite:
    """Draw a shape on a canvas that fits it with `margin` empty pixels around."""
    cosine, sine = direction(pose.turn)
    placed = []
    for loop in loops:
        x, y = loop[:, 0] * pose.scale, loop[:, 1] * pose.scale * pose.squeeze
        placed.append(np.stack([x * cosine - y * sine, x * sine + y * cosine], 1) + pose.shift)
    low = np.floor(placed[0].min(0)).astype(int) - margin
    high = np.ceil(placed[0].max(0)).astype(int) + margin
    w, h = (int(n) for n in high - low)
    coverage = _fill([loop - low for loop in placed], (h, w))
    x = (np.arange(w) + (0.5 + low[0] - pose.shift[0])).astype(np.float32)[None, :] / pose.scale
    y = (np.arange(h) + (0.5 + low[1] - pose.shift[1])).astype(np.float32)[:, None] / pose.scale
    u = (x * cosine + y * sine).astype(np.float32)
    v = ((y * cosine - x * sine) / pose.squeeze).astype(np.float32)
    mask = coverage >= FINE * FINE // 2
    origin = -int(low[0]), -int(low[1])
    return Sprite(coverage, u, v, origin, pose.scale, mask, int(np.count_nonzero(mask)))


def _fill(loops: list[Loop], size: tuple[int, int]) -> NDArray[np.uint8]:
    """uint8 (h, w), 0..16: sub-pixel centres inside the even-odd area of `loops` (pixels).

    Not `cv2.fillPoly`: it also fills what the outline touches, so shapes would grow and holes shrink.
    """
    rows, columns = size[0] * FINE, size[1] * FINE
    fine = [np.rint(loop * FINE * STEPS) / STEPS - 0.5 for loop in loops]
    start = np.concatenate(fine)
    end = np.concatenate([np.roll(loop, -1, axis=0) for loop in fine])
    at = np.arange(rows)
    edge, row = np.nonzero((start[:, 1:] <= at) != (end[:, 1:] <= at))
    run, rise = (end - start)[edge].T
    crossing = start[edge, 0] + (row - start[edge, 1]) * run / rise
    first = np.ceil(crossing).astype(np.intp)  # the first centre to the right of the edge
    flips = np.bincount(row * columns + first, minlength=rows * columns).astype(np.uint8)
    inside = np.cumsum(flips.reshape(rows, columns), axis=1, dtype=np.uint8) & 1
    tall = inside[0::FINE] + inside[1::FINE] + inside[2::FINE] + inside[3::FINE]
    total: NDArray[np.uint8] = tall[:, 0::4] + tall[:, 1::4] + tall[:, 2::4] + tall[:, 3::4]
    return total
