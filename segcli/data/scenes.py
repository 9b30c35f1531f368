"""Scenes of textured things that lie on and over each other, with exact masks of what is visible."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segcli.data import shapes, surfaces
from segcli.data.backgrounds import add_clutter, blend, expose, ground, light
from segcli.data.shapes import Loops, Pose, Sprite, area, direction, rasterise
from segcli.data.surfaces import Pair, Surface
from segcli.data.textures import Field, soften

SIZE = (256, 320)  # (H, W) of every picture, pixels
LEAST_OBJECTS, MOST_OBJECTS = 8, 11
LEAST_VISIBLE = 20  # pixels; an object with fewer would be no fair truth
LEAST_GAP = 0.02  # share of an object that may go under another by chance
HIDDEN = (0.06, 0.26)  # share of an object that one laid over it on purpose hides
LEAST_INSIDE = 0.9  # share of an object inside the picture
OVER_SHARE = 0.45  # of the objects, laid over an earlier one
SMALL_SHARE = 0.235  # of the objects, drawn below 32² pixels
SMALL_SIDES, SIDES = (20.0, 31.0), (36.0, 66.0)  # square root of the area, pixels
_MARGIN = 8  # pixels around a sprite, for its shadow
_TRIES = 40
_CLEAR = -1  # owner of pixels that show the ground


@dataclass(frozen=True)
class Kind:
    """One class: its outline, its surface and the materials it comes in."""

    name: str
    outline: Callable[[np.random.Generator], Loops]
    surface: Callable[[Sprite, np.random.Generator], Surface]
    materials: tuple[Pair, ...]


KINDS = (
    Kind("washer", shapes.washer, surfaces.washer, (surfaces.BRASS, surfaces.COPPER)),
    Kind("gear", shapes.gear, surfaces.gear, (surfaces.IRON, surfaces.ENAMEL)),
    Kind("bolt", shapes.bolt, surfaces.bolt, (surfaces.STEEL,)),
    Kind("star", shapes.star, surfaces.star, (surfaces.CORAL, surfaces.PLUM, surfaces.TEAL)),
    Kind("leaf", shapes.leaf, surfaces.leaf, (surfaces.GREEN, surfaces.OCHRE, surfaces.RUST)),
)
CLASS_NAMES = tuple(kind.name for kind in KINDS)
_ALL_MATERIALS = tuple(pair for kind in KINDS for pair in kind.materials)


@dataclass(frozen=True, eq=False)
class Scene:
    """One picture and its truth.

    Attributes:
        image: uint8 (H, W, 3), RGB.
        labels: int32 (N,), index into `CLASS_NAMES`.
        visible: bool (N, H, W), the part of each object that is seen; no two overlap.
        whole_areas: int64 (N,), pixels of each object inside the picture, seen or hidden.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.int32]
    visible: NDArray[np.bool_]
    whole_areas: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Thing:
    """An object at its place: `corner` is (x, y) of the sprite's canvas on the picture."""

    label: int
    sprite: Sprite
    corner: tuple[int, int]


class _Layout:
    """Places things one over the other, and knows whose each pixel is."""

    def __init__(self) -> None:
        self.things: list[_Thing] = []
        self.owner = np.full(SIZE, _CLEAR, np.int32)
        self.whole = np.zeros(0, np.int64)  # pixels of each thing inside the picture
        self.seen = np.zeros(0, np.int64)  # of these, the ones on top

    def covered_by(self, thing: _Thing) -> NDArray[np.int64]:
        """int64 (N,): pixels of each thing that `thing`, laid on top, would take."""
        here, there = windows(thing.corner, thing.sprite.coverage.shape)
        owners = self.owner[here][thing.sprite.mask[there]] + 1
        return np.bincount(owners, minlength=len(self.things) + 1)[1:]

    def accepts(self, thing: _Thing, host: int | None) -> bool:
        """Whether `thing` may lie here: over `host` as it should, over others hardly."""
        _, there = windows(thing.corner, thing.sprite.coverage.shape)
        if np.count_nonzero(thing.sprite.mask[there]) < LEAST_INSIDE * thing.sprite.pixels:
            return False
        covered = self.covered_by(thing)
        hidden = 1 - (self.seen - covered) / self.whole
        touched = covered > 0
        if np.any(hidden[touched] > HIDDEN[1]) or np.any(self.seen - covered < LEAST_VISIBLE):
            return False
        if host is None:
            return bool(np.all(covered <= LEAST_GAP * self.whole))
        return bool(hidden[host] >= HIDDEN[0])

    def add(self, thing: _Thing) -> None:
        here, there = windows(thing.corner, thing.sprite.coverage.shape)
        mask = thing.sprite.mask[there]
        size = np.count_nonzero(mask)
        self.seen = np.append(self.seen - self.covered_by(thing), size)
        self.whole = np.append(self.whole, size)
        self.owner[here][mask] = len(self.things)
        self.things.append(thing)


def windows(
    corner: tuple[int, int], size: tuple[int, ...]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where a canvas of `size` (h, w) at `corner` (x, y) meets the picture: picture's and canvas's slices."""
    here, there = [], []
    for start, length, limit in zip(corner[::-1], size, SIZE, strict=True):
        low, high = max(start, 0), max(min(start + length, limit), max(start, 0))
        here.append(slice(low, high))
        there.append(slice(low - start, high - start))
    return (here[0], here[1]), (there[0], there[1])


def draw_scene(rng: np.random.Generator) -> Scene:
    """Draw one scene from a stream of random numbers."""
    layout = _arrange(rng)
    picture = ground(rng, SIZE)
    add_clutter(picture, rng, _ALL_MATERIALS)
    sun = direction(rng.random())
    for thing in layout.things:
        _paint(picture, thing, sun, rng)
    image = expose(picture * light(rng, SIZE), rng)
    numbers = np.arange(len(layout.things), dtype=np.int32)
    return Scene(
        image=image,
        labels=np.array([thing.label for thing in layout.things], np.int32),
        visible=layout.owner == numbers[:, None, None],
        whole_areas=np.array(layout.whole, np.int64),
    )


def _arrange(rng: np.random.Generator) -> _Layout:
    """Lay out the things; where one finds no place, a smaller one is tried."""
    layout = _Layout()
    wanted = int(rng.integers(LEAST_OBJECTS, MOST_OBJECTS + 1))
    shrink = 1.0
    while len(layout.things) < wanted:  # ends: the smallest things cover a twentieth of the picture
        label = int(rng.integers(len(KINDS)))
        sprite = _sprite(KINDS[label], rng, shrink)
        host = None
        if layout.things and rng.random() < OVER_SHARE:
            host = int(rng.integers(len(layout.things)))
        thing = _find_place(layout, label, sprite, host=host, rng=rng)
        if thing is None:
            shrink *= 0.95
        else:
            layout.add(thing)
    return layout


def _sprite(kind: Kind, rng: np.random.Generator, shrink: float) -> Sprite:
    """An object of random size and turn."""
    small = rng.random() < SMALL_SHARE
    side = rng.uniform(*(SMALL_SIDES if small else SIDES))
    loops = kind.outline(rng)
    squeeze = rng.uniform(0.86, 1.0)
    side = max(side * shrink, SMALL_SIDES[0])
    scale = side / float(np.sqrt(area(loops) * squeeze))
    pose = Pose(scale, rng.random(), squeeze, (rng.random(), rng.random()))
    return rasterise(loops, pose, _MARGIN)


def _find_place(
    layout: _Layout, label: int, sprite: Sprite, *, host: int | None, rng: np.random.Generator
) -> _Thing | None:
    """A place over `host`, or (None) free of others; None after too many tries."""
    for _ in range(_TRIES):
        x, y = _spot(layout, sprite, host, rng)
        thing = _Thing(label, sprite, (x - sprite.origin[0], y - sprite.origin[1]))
        if layout.accepts(thing, host):
            return thing
    return None


def _spot(
    layout: _Layout, sprite: Sprite, host: int | None, rng: np.random.Generator
) -> tuple[int, int]:
    """(x, y) for a sprite's origin: anywhere, or beside the middle of `host`."""
    if host is None:
        y, x = (int(n) for n in rng.integers((0, 0), SIZE))
        return x, y
    under = layout.things[host]
    away = rng.uniform(0.3, 1.0) * (sprite.scale + under.sprite.scale)
    across, down = direction(rng.random())
    x = under.corner[0] + under.sprite.origin[0] + round(away * across)
    y = under.corner[1] + under.sprite.origin[1] + round(away * down)
    return x, y


def _paint(
    picture: Field, thing: _Thing, sun: tuple[float, float], rng: np.random.Generator
) -> None:
    """Paint a thing and its shadow; `sun` is the (x, y) direction towards the light."""
    kind, sprite = KINDS[thing.label], thing.sprite
    here, there = windows(thing.corner, sprite.coverage.shape)
    low, high = kind.materials[int(rng.integers(len(kind.materials)))]
    tint = rng.integers(-14, 15, 3)
    surface = kind.surface(sprite, rng)
    full = np.float32(shapes.FINE**2)
    soft = soften(sprite.coverage, 2) / full
    step = 2 if sprite.scale > 16 else 1
    relief = soft - _moved(soft, -round(step * sun[0]), -round(step * sun[1]))
    shade = surface.shade + np.float32(0.55) * relief
    colour = blend(shade, (low + tint, high + tint))
    colour += (255 - colour) * (surface.gloss + np.maximum(relief, 0) * np.float32(0.25))[..., None]
    shadow = np.float32(0.5) * _moved(soft, -round(4 * sun[0]), -round(4 * sun[1]))
    alpha = sprite.coverage.astype(np.float32)[..., None] / full
    under = picture[here] * (1 - shadow[there])[..., None]
    picture[here] = under + (colour[there] - under) * alpha[there]


def _moved(field: Field, x: int, y: int) -> Field:
    """Shift by whole pixels to the right and down; what leaves on one side is empty margin."""
    return np.roll(field, (y, x), axis=(0, 1))
