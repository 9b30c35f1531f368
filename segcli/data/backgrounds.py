"""Grounds of the synthetic scenes: material, things that are no objects, light and sensor noise.

All pictures are float32 (H, W, 3) RGB, 0..255, until the last step.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from segcli.data.shapes import direction
from segcli.data.surfaces import Pair
from segcli.data.textures import Field, clouds, grains, noise, smooth_step, soften, wave

Size = tuple[int, int]

OAK: Pair = ((104, 70, 42), (196, 150, 102))
WALNUT: Pair = ((62, 42, 32), (142, 102, 74))
SLATE: Pair = ((62, 68, 76), (140, 146, 152))
CONCRETE: Pair = ((118, 114, 108), (196, 192, 184))
FELT: Pair = ((34, 70, 50), (92, 134, 92))
DENIM: Pair = ((44, 62, 94), (128, 148, 176))
LINEN: Pair = ((150, 132, 106), (226, 210, 182))
BEACH: Pair = ((150, 118, 80), (224, 192, 146))


def ground(rng: np.random.Generator, size: Size) -> Field:
    """One of six materials."""
    number = int(rng.integers(0, 6))
    if number <= 1:
        return blend(_planks(rng, size), (OAK, WALNUT)[number])
    if number <= 3:
        return blend(_stone(rng, size), (SLATE, CONCRETE)[number - 2])
    if number == 4:
        return blend(_cloth(rng, size), (FELT, DENIM, LINEN)[int(rng.integers(0, 3))])
    return blend(_ripples(rng, size), BEACH)


def blend(shade: Field, pair: tuple[ArrayLike, ArrayLike]) -> Field:
    """Colour a shade 0..1 from the pair's dark to its light RGB: (h, w) to (h, w, 3)."""
    dark, light = (np.array(colour, np.float32) for colour in pair)
    colour: Field = np.clip(shade, 0, 1)[..., None] * (light - dark)
    colour += dark
    return colour


def _planks(rng: np.random.Generator, size: Size) -> Field:
    """Boards with grain, upright in half of the scenes."""
    upright = rng.random() < 0.5
    H, W = size[::-1] if upright else size
    board = rng.uniform(46, 84)
    place = np.arange(H) / board + rng.random()
    number = place.astype(int)
    own_phase, tone = _random_rows(rng, number), _random_rows(rng, number) - 0.5
    bend = noise(rng, (H, W), (26, 150)) * 3 + own_phase * 5
    rows = np.arange(H, dtype=np.float32)[:, None]
    rings = wave(rows / np.float32(13) + bend)
    fibre = noise(rng, (H, W), (1.6, 34)) - 0.5
    shade = 0.5 + 0.16 * rings + 0.42 * fibre + 0.3 * tone
    seam = (place - number) * board < 1.6
    shade = np.where(seam[:, None], shade - 0.5, shade).astype(np.float32)
    return np.ascontiguousarray(shade.T) if upright else shade


def _random_rows(rng: np.random.Generator, number: NDArray[np.intp]) -> Field:
    """A value 0..1 for each row (H, 1), the same for rows of the same number."""
    return rng.random(int(number[-1]) + 1).astype(np.float32)[number][:, None]


def _stone(rng: np.random.Generator, size: Size) -> Field:
    """Clouded stone with specks and thin cracks."""
    shade = 0.1 + 0.8 * clouds(rng, size, 70, 5)
    crack = np.abs(clouds(rng, size, 90, 3) - 0.5)
    shade = shade - 0.3 * (1 - smooth_step(crack, 0.0, 0.012))
    specks = noise(rng, size, (2.2, 2.2))
    bright, dark = smooth_step(specks, 0.8, 1.0), 1 - smooth_step(specks, 0.0, 0.2)
    stone: Field = shade + 0.35 * bright - 0.3 * dark
    return stone


def _cloth(rng: np.random.Generator, size: Size) -> Field:
    """A plain weave with uneven threads."""
    rows, columns = (np.arange(n, dtype=np.float32) for n in size)
    pitch = np.float32(rng.uniform(4.2, 6.5))
    weave = wave(columns / pitch)[None, :] * wave(rows / pitch)[:, None]
    threads = noise(rng, size, (40, 2)) + noise(rng, size, (2, 40)) - 1
    return 0.1 * weave + 0.4 * threads + 0.2 + 0.6 * clouds(rng, size, 80, 3)


def _ripples(rng: np.random.Generator, size: Size) -> Field:
    """Sand, drawn into waves by the wind."""
    x, y = direction(rng.random())
    rows = np.arange(size[0], dtype=np.float32)[:, None] * np.float32(y)
    columns = np.arange(size[1], dtype=np.float32)[None, :] * np.float32(x)
    phase: Field = rows + columns
    phase /= rng.uniform(18, 26)
    phase += np.float32(2) * clouds(rng, size, 90, 2)
    lumps = noise(rng, size, (5, 5)) - 0.5
    sand: Field = 0.5 + 0.2 * wave(phase) + 0.14 * grains(rng, size) + 0.4 * lumps
    return sand


def add_clutter(picture: Field, rng: np.random.Generator, pairs: tuple[Pair, ...]) -> None:
    """Paint stains, paper scraps and crumbs in the objects' colours; changes `picture`."""
    for _ in range(int(rng.integers(1, 4))):
        _stain(picture, rng, pairs[int(rng.integers(len(pairs)))])
    for _ in range(int(rng.integers(1, 4))):
        _scrap(picture, rng, pairs[int(rng.integers(len(pairs)))])
    _crumbs(picture, rng, pairs[int(rng.integers(len(pairs)))])


def _stain(picture: Field, rng: np.random.Generator, pair: Pair) -> None:
    """A blot without an edge of its own."""
    H, W = picture.shape[:2]
    side = int(rng.integers(40, 96))
    y, x = int(rng.integers(0, H - side)), int(rng.integers(0, W - side))
    ramp = np.abs(np.arange(side, dtype=np.float32) * np.float32(2 / side) - 1)
    away = np.sqrt(ramp[:, None] ** 2 + ramp[None, :] ** 2)
    blot = clouds(rng, (side, side), side / 3, 3) * 1.3 - away
    amount = np.float32(rng.uniform(0.4, 0.8)) * smooth_step(blot, -0.3, 0.15)
    _cover(
        picture[y : y + side, x : x + side],
        amount,
        blend(np.full((side, side), 0.5, np.float32), pair),
    )


def _scrap(picture: Field, rng: np.random.Generator, pair: Pair) -> None:
    """A torn piece of paper with a shadow."""
    H, W = picture.shape[:2]
    half = rng.uniform(9, 26, 2)
    centre = np.array([rng.uniform(0, W), rng.uniform(0, H)])
    x, y = direction(rng.random())
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * half + rng.uniform(-4, 4, (4, 2))
    points = np.stack(
        [corners[:, 0] * x - corners[:, 1] * y, corners[:, 0] * y + corners[:, 1] * x], 1
    )
    amount = np.zeros((H, W), np.uint8)
    cv2.fillPoly(amount, [np.rint((points + centre) * 16).astype(np.int32)], (16,), cv2.LINE_8, 4)
    low = np.maximum(np.floor((points + centre).min(0)).astype(int) - 9, 0)
    high = np.minimum(np.ceil((points + centre).max(0)).astype(int) + 10, (W, H))
    window = slice(low[1], high[1]), slice(low[0], high[0])
    if high[0] <= low[0] or high[1] <= low[1]:
        return
    piece = np.ascontiguousarray(amount[window])
    picture[window] *= (1 - np.float32(0.4 / 16) * soften(piece, 3))[..., None]
    shade = np.float32(rng.uniform(0.35, 0.8)) + 0.06 * grains(
        rng, (piece.shape[0], piece.shape[1])
    )
    _cover(picture[window], soften(piece, 1, 1) / np.float32(16), blend(shade, pair))


def _crumbs(picture: Field, rng: np.random.Generator, pair: Pair) -> None:
    """Specks of a few pixels."""
    H, W = picture.shape[:2]
    count = int(rng.integers(20, 60))
    corners = rng.integers((0, 0), (H, W), (count, 2)).tolist()
    sides = rng.integers(1, 5, (count, 2)).tolist()
    colours = blend(rng.random(count).astype(np.float32), pair)
    for (y, x), (h, w), colour in zip(corners, sides, colours, strict=True):
        speck = picture[y : y + h, x : x + w]
        speck += np.float32(0.7) * (colour - speck)


def _cover(target: Field, amount: Field, colour: Field) -> None:
    target += (colour - target) * amount[..., None]


def light(rng: np.random.Generator, size: Size) -> Field:
    """Uneven light: a fall-off across the picture, a soft spot, cloudy shade; factors (H, W, 3)."""
    H, W = size
    x, y = direction(rng.random())
    rows = (np.arange(H, dtype=np.float32)[:, None] / H - np.float32(0.5)) * np.float32(y)
    columns = (np.arange(W, dtype=np.float32)[None, :] / W - np.float32(0.5)) * np.float32(x)
    slope = np.float32(rng.uniform(0.4, 0.75)) * (rows + columns)
    away_y = (np.arange(H, dtype=np.float32)[:, None] - H * np.float32(rng.random())) / 110
    away_x = (np.arange(W, dtype=np.float32)[None, :] - W * np.float32(rng.random())) / 110
    spot = np.float32(0.45) / (1 + away_y**2 + away_x**2)
    shade = np.float32(0.3) * smooth_step(noise(rng, size, (95, 95)), 0.45, 0.7)
    level = (np.float32(0.92) + slope + spot) * (1 - shade)
    warm = np.array([1.05, 1.0, 0.93], np.float32)[:: 1 if rng.random() < 0.6 else -1]
    return np.maximum(level, np.float32(0.3))[..., None] * warm


def expose(picture: Field, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Add sensor noise (more of it in bright places) and round to uint8."""
    H, W = picture.shape[:2]
    bright = np.sqrt(picture)
    strength = np.float32(rng.uniform(0.1, 0.3))
    grey = grains(rng, (H, W))[..., None] * np.float32(2)
    fine = grains(rng, (H, W * 3)).reshape(H, W, 3)
    noisy = picture + (np.float32(1) + strength * bright) * fine + grey
    rounded: NDArray[np.uint8] = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
    return rounded
