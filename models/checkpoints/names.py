"""Renaming of state dicts: what the key maps of all families are made of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

NORM = r"(weight|bias|running_mean|running_var)"
COUNTER = r"(?:.*\.)?num_batches_tracked"  # of training only: no norm reads it in evaluation


@dataclass(frozen=True)
class KeyMap:
    """How one layout's names become ours, which are torchvision's.

    Attributes:
        family: for messages.
        rename: (pattern of a whole native name, our name); the first that matches counts.
        drop: patterns of names that hold no weights of the network.
        refuse: (pattern of the start of a native name, what it is a part of): networks that are not supported.
    """

    family: str
    rename: Sequence[tuple[str, str]]
    drop: Sequence[str] = ()
    refuse: Sequence[tuple[str, str]] = ()

    def refuse_unsupported(self, names: Iterable[str]) -> None:
        """Stop at the first part of a network that cannot be run.

        Raises:
            ValueError: with the part's name.
        """
        names = sorted(names)
        for pattern, what in self.refuse:
            match = next((name for name in names if re.match(pattern, name)), None)
            if match is not None:
                raise ValueError(f"{what} is not supported ({self.family} weights, {match})")

    def apply(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The same tensors under our names.

        Raises:
            ValueError: a part that is not supported, a name that is not known, or two of one meaning.
        """
        self.refuse_unsupported(state)
        drop = re.compile("|".join((COUNTER, *self.drop)))
        rules = [(re.compile(pattern), ours) for pattern, ours in self.rename]
        renamed: dict[str, Tensor] = {}
        for name, tensor in state.items():
            if drop.fullmatch(name):
                continue
            ours = _new_name(name, rules)
            if ours is None:
                raise ValueError(f"{name!r} is no part of a {self.family} Mask R-CNN with FPN")
            if ours in renamed:
                raise ValueError(f"{name!r} is there twice, once under another name")
            renamed[ours] = tensor
        return renamed


def _new_name(name: str, rules: Iterable[tuple[re.Pattern[str], str]]) -> str | None:
    for pattern, ours in rules:
        match = pattern.fullmatch(name)
        if match is not None:
            return match.expand(ours)
    return None


def without_prefix(state: dict[str, Tensor], prefix: str = "module.") -> dict[str, Tensor]:
    """Names without the prefix of DistributedDataParallel, where all have it."""
    if state and all(name.startswith(prefix) for name in state):
        return {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state
