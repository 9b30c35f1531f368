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


def choose(names: Sequence[str], *, seed: int, epoch: int, index: int) -> Change:
    """The change for one picture; depends on nothing but its arguments, so on no worker count or order."""
    rng = np.random.Generator(np.random.PCG64([seed, epoch, index]))
    flip, place = rng.random(2)
    low, high = (math.log(limit) for limit in _SCALE_RANGE)
    return Change(
        flip="flip" in names and flip < 0.5,
        scale=math.exp(low + (high - low) * place) if "scale" in names else 1.0,
    )
