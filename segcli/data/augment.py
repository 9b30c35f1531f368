"""Random changes of training pictures: chosen here as numbers, carried out where pixels and boxes are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segcli.errors import UsageError

AUGMENTATIONS = ("flip", "scale")
_SCALE_RANGE = (0.75, 1.35)


@dataclass(frozen=True)
class Change:
    """What happens to one picture in one epoch.

    Attributes:
        flip: mirror left and right.
        scale: factor on top of the network's own resize.
    """

    flip: bool = False
    scale: float = 1.0


def check_names(names: Sequence[str]) -> None:
    """Refuse unknown augmentations.

    Raises:
        UsageError: a name is not in `AUGMENTATIONS`.
    """
    for name in names:
        if name not in AUGMENTATIONS:
            raise UsageError(f"--augment {name!r}: expected some of {', '.join(AUGMENTATIONS)}")


def choose(names: Sequence[str], *, seed: int, epoch: int, index: int, batch: int) -> Change:
    """The change for one picture; depends on nothing but its arguments, so on no worker count or order.

    Flips are drawn per picture. The scale is drawn per batch: pictures of a batch are padded to the largest, and
    scales of their own would make most of what the network sees padding.

    Args:
        names: of the augmentations that are on.
        seed: of the run.
        epoch: counts from 0.
        index: of the picture in the dataset.
        batch: of the step within the epoch.
    """
    flip = np.random.Generator(np.random.PCG64([seed, epoch, index])).random() < 0.5
    place = np.random.Generator(np.random.PCG64([seed, epoch, batch, 1])).random()
    low, high = (math.log(limit) for limit in _SCALE_RANGE)
    return Change(
        flip="flip" in names and bool(flip),
        scale=math.exp(low + (high - low) * place) if "scale" in names else 1.0,
    )
