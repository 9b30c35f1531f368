"""Materials of the synthetic classes: how each shape's surface looks, in the shape's own frame.

Colours overlap between classes and backgrounds on purpose; what tells classes apart is shape and texture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segcli.data.shapes import Sprite, direction
from segcli.data.textures import Field, clouds, grains, smooth_step, wave

Colour = tuple[int, int, int]
Pair = tuple[Colour, Colour]  # a dark and a light shade of one material, RGB

STEEL: Pair = ((92, 97, 106), (196, 201, 208))
IRON: Pair = ((58, 58, 64), (136, 135, 140))
BRASS: Pair = ((128, 92, 40), (226, 190, 112))
COPPER: Pair = ((118, 62, 38), (222, 150, 104))
ENAMEL: Pair = ((42, 74, 122), (110, 150, 196))
CORAL: Pair = ((150, 62, 48), (238, 146, 112))
PLUM: Pair = ((84, 48, 92), (176, 128, 178))
TEAL: Pair = ((34, 88, 96), (120, 178, 176))
GREEN: Pair = ((48, 84, 34), (146, 180, 84))
OCHRE: Pair = ((146, 94, 26), (236, 190, 88))
RUST: Pair = ((104, 44, 24), (206, 112, 62))


@dataclass(frozen=True, eq=False)
class Surface:
    """How a sprite looks under even light.

    Attributes:
        shade: float32 (h, w), 0..1: from the material's dark to its light colour.
        gloss: float32 (h, w), 0..1: white added on top.
    """

    shade: Field
    gloss: Field


def _size(sprite: Sprite) -> tuple[int, int]:
    return sprite.coverage.shape[0], sprite.coverage.shape[1]


def _per_unit(sprite: Sprite, wanted: float, least_pixels: float = 3.2) -> float:
    """Periods per unit: `wanted`, fewer on small sprites so that a period keeps `least_pixels`."""
    return min(wanted, sprite.scale / least_pixels)


def _along(sprite: Sprite, turn: float) -> Field:
    """Distance along a direction of the shape's own frame, in units."""
    x, y = direction(turn)
    return sprite.u * np.float32(x) + sprite.v * np.float32(y)


def washer(sprite: Sprite, rng: np.random.Generator) -> Surface:
    """Turned metal: two bright wedges, fine rings."""
    radius2 = sprite.u**2 + sprite.v**2 + np.float32(1e-4)
    turn = rng.random()
    sheen = (
        2 * _along(sprite, turn) * _along(sprite, turn + 0.25) / radius2
    )  # sine of twice the angle
    rings = wave(np.sqrt(radius2) * np.float32(_per_unit(sprite, 9)))
    shade = 0.5 + 0.3 * sheen + 0.1 * rings + 0.05 * grains(rng, _size(sprite))
    return Surface(shade, 0.5 * smooth_step(sheen, 0.7, 1.0))


def gear(sprite: Sprite, rng: np.random.Generator) -> Surface:
    """Cast metal: mottled, with a sunken web between rim and hub."""
    radius = np.sqrt(sprite.u**2 + sprite.v**2)
    web = smooth_step(radius, 0.3, 0.36) * (1 - smooth_step(radius, 0.64, 0.7))
    mottle = clouds(rng, _size(sprite), max(3.0, sprite.scale * 0.16), 2) - 0.5
    shade = 0.62 - 0.34 * web + 0.55 * mottle + 0.09 * grains(rng, _size(sprite))
    return Surface(shade, np.zeros_like(radius))


def bolt(sprite: Sprite, rng: np.random.Generator) -> Surface:
    """A threaded shaft lit like a cylinder, and a head with facets."""
    across = np.abs(sprite.v)
    thread = wave((sprite.u + 0.12 * sprite.v) * np.float32(_per_unit(sprite, 6.5, 2.8)))
    shaft = 0.8 - 1.35 * across + 0.3 * thread
    facet = np.where(across < 0.3, np.float32(0.78), np.float32(0.36))
    is_head = smooth_step(-sprite.u, 0.28, 0.33)
    shade = shaft + (facet - shaft) * is_head + 0.04 * grains(rng, _size(sprite))
    return Surface(shade, 0.35 * (1 - smooth_step(across, 0.0, 0.1)) * (1 - 0.4 * is_head))


def star(sprite: Sprite, rng: np.random.Generator) -> Surface:
    """Skin with a bright ridge along each arm, and warts."""
    ridge = np.zeros_like(sprite.u)
    for arm in range(5):
        along, across = _along(sprite, arm / 5), np.abs(_along(sprite, arm / 5 + 0.25))
        ridge = np.maximum(ridge, (1 - across / np.float32(0.3)) * (along > -0.1))
    often = np.float32(_per_unit(sprite, 6, 3.6))
    warts = wave(sprite.u * often) * wave(sprite.v * often)
    shade = 0.3 + 0.45 * ridge + 0.3 * smooth_step(warts, 0.2, 0.9)
    shade = shade + 0.06 * grains(rng, _size(sprite))
    return Surface(shade.astype(np.float32), np.zeros_like(ridge))


def leaf(sprite: Sprite, rng: np.random.Generator) -> Surface:
    """A blade in two tones with a pale midrib and side veins."""
    across = np.abs(sprite.v)
    veins = wave((sprite.u - np.float32(0.8) * across) * np.float32(_per_unit(sprite, 4.5)))
    side = smooth_step(veins, 0.55, 1.0)
    midrib = 1 - smooth_step(across, 0.02, 0.02 + max(0.05, 0.9 / sprite.scale))
    blotch = clouds(rng, _size(sprite), max(4.0, sprite.scale * 0.4), 2) - 0.5
    shade = 0.38 + 0.16 * (sprite.v > 0) + 0.26 * side + 0.6 * blotch
    shade = np.maximum(shade, 0.95 * midrib) + 0.04 * grains(rng, _size(sprite))
    return Surface(shade.astype(np.float32), np.zeros_like(across))
