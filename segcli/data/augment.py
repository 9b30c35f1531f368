"""Random changes of training pictures: chosen here as numbers, carried out where pixels and masks are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segcli.errors import UsageError

AUGMENTATIONS = ("flip", "scale", "vflip", "rotate90", "crop", "lsj", "color", "copy-paste")
_SCALE_RANGE = (0.75, 1.35)
_CROP_RANGE = (0.6, 1.0)  # share of each side
_LSJ_RANGE = (0.1, 2.0)  # Ghiasi et al. 2021, section 3: large scale jittering
_PASTE_SHARE = 0.5  # of the pictures that get objects of another one
_TONE = 0.25  # brightness, contrast and saturation change by up to this share
_HUE = 0.04  # of the colour circle, to either side
# draws of their own for every kind of change, so that switching one on leaves the others as they were
_VFLIP, _TURN, _CROP, _LSJ, _COLOR, _PASTE = range(2, 8)

Place = tuple[float, float]


@dataclass(frozen=True)
class CropChange:
    """A window of the picture, of the picture's own aspect ratio.

    Attributes:
        side: share of each side that stays.
        place: x and y of the window, 0 = at the left or top edge, 1 = at the other.
    """

    side: float
    place: Place


@dataclass(frozen=True)
class Jitter:
    """Large-scale jitter: the picture at a very different scale in a square of fixed size.

    Attributes:
        scale: longer side of the picture / side of the square.
        place: where the window lies in a picture larger than the square, as in `CropChange`.
    """

    scale: float
    place: Place


@dataclass(frozen=True)
class ColorChange:
    """Factors of brightness, contrast and saturation; hue in turns of the colour circle."""

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0


@dataclass(frozen=True)
class Paste:
    """Objects of another picture are pasted in.

    Attributes:
        flip: mirror them.
        jitter: their own scale where `lsj` is on, as in `Jitter`; else they take the picture's.
        place: where the other picture lies on this one, as in `CropChange`.
        seed: of the choice of objects.
    """

    flip: bool
    jitter: float
    place: Place
    seed: int


@dataclass(frozen=True)
class Change:
    """What happens to one picture in one step.

    Attributes:
        flip: mirror left and right.
        scale: factor on top of the network's own resize.
        vflip: mirror top and bottom.
        turns: quarter turns counter-clockwise, after the flips.
        crop: train on a window.
        lsj: large-scale jitter.
        color: other tones.
        paste: objects of another picture.
    """

    flip: bool = False
    scale: float = 1.0
    vflip: bool = False
    turns: int = 0
    crop: CropChange | None = None
    lsj: Jitter | None = None
    color: ColorChange | None = None
    paste: Paste | None = None


def check_names(names: Sequence[str]) -> None:
    """Refuse unknown augmentations, and those that contradict each other.

    Raises:
        UsageError: a name is not in `AUGMENTATIONS`, or `lsj` comes with `scale` or `crop`.
    """
    for name in names:
        if name not in AUGMENTATIONS:
            raise UsageError(f"--augment {name!r}: expected some of {', '.join(AUGMENTATIONS)}")
    for other in ("scale", "crop"):
        if "lsj" in names and other in names:
            raise UsageError(
                f"--augment {','.join(names)}: lsj scales and crops by itself; leave out {other} or lsj"
            )


def choose(
    names: Sequence[str], *, seed: int, epoch: int, index: int, batch: int, repeat: int = 0
) -> Change:
    """The change for one picture; depends on nothing but its arguments, so on no worker count or order.

    What decides a picture's size is drawn per batch (scale, quarter turns): pictures of a batch are padded to the
    largest, and sizes of their own would make most of what the network sees padding. All else is drawn per picture.

    Args:
        names: of the augmentations that are on.
        seed: of the run.
        epoch: counts from 0.
        index: of the picture in the dataset.
        batch: of the step within the epoch.
        repeat: how often the picture came up before in this epoch.
    """

    def draws(kind: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64([seed, epoch, index, repeat, kind]))

    return Change(
        flip="flip" in names and _flipped(seed, epoch, index, repeat),
        scale=_batch_scale(seed, epoch, batch) if "scale" in names else 1.0,
        vflip="vflip" in names and bool(draws(_VFLIP).random() < 0.5),
        turns=_turns(draws(_TURN), seed, epoch, batch) if "rotate90" in names else 0,
        crop=_crop(draws(_CROP)) if "crop" in names else None,
        lsj=_jitter(draws(_LSJ)) if "lsj" in names else None,
        color=_color(draws(_COLOR)) if "color" in names else None,
        paste=_paste(draws(_PASTE), names) if "copy-paste" in names else None,
    )


def _flipped(seed: int, epoch: int, index: int, repeat: int) -> bool:
    key = [seed, epoch, index, 0, repeat] if repeat else [seed, epoch, index]
    return bool(np.random.Generator(np.random.PCG64(key)).random() < 0.5)


def _batch_scale(seed: int, epoch: int, batch: int) -> float:
    place = np.random.Generator(np.random.PCG64([seed, epoch, batch, 1])).random()
    return _between(*_SCALE_RANGE, place)


def _between(low: float, high: float, place: float) -> float:
    """From `low` (place 0) to `high` (place 1), in equal ratios."""
    return math.exp(math.log(low) + (math.log(high) - math.log(low)) * place)


def _place(rng: np.random.Generator) -> Place:
    return float(rng.random()), float(rng.random())


def _turns(rng: np.random.Generator, seed: int, epoch: int, batch: int) -> int:
    """Odd or even by batch, since odd turns swap height and width."""
    odd = np.random.Generator(np.random.PCG64([seed, epoch, batch, 0, _TURN])).random() < 0.5
    return int(odd) + 2 * int(rng.random() < 0.5)


def _crop(rng: np.random.Generator) -> CropChange:
    return CropChange(float(rng.uniform(*_CROP_RANGE)), _place(rng))


def _jitter(rng: np.random.Generator) -> Jitter:
    return Jitter(float(rng.uniform(*_LSJ_RANGE)), _place(rng))


def _color(rng: np.random.Generator) -> ColorChange:
    brightness, contrast, saturation = (float(v) for v in rng.uniform(1 - _TONE, 1 + _TONE, 3))
    return ColorChange(brightness, contrast, saturation, float(rng.uniform(-_HUE, _HUE)))


def _paste(rng: np.random.Generator, names: Sequence[str]) -> Paste | None:
    if rng.random() >= _PASTE_SHARE:
        return None
    flip = "flip" in names and bool(rng.random() < 0.5)
    jitter = float(rng.uniform(*_LSJ_RANGE))
    return Paste(flip, jitter, _place(rng), int(rng.integers(2**62)))
