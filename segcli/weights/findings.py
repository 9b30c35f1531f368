"""What a config says about the weights beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from reprlib import repr as short  # a config may nest its parts without end
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segcli.models import Anchors, Conventions


@dataclass(frozen=True)
class Finding:
    """Conventions, and why these.

    Attributes:
        conventions: of the weights.
        origin: where they come from, for messages and the record: one line.
        anchors: None where nothing was said of them: the usual ones.
        notes: what differs from the family's own run, one line each.
    """

    conventions: Conventions
    origin: str
    anchors: Anchors | None = None
    notes: tuple[str, ...] = field(default=())


def numbers(value: Any, count: int, what: str) -> list[float]:
    """A list of so many numbers.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(value, list | tuple) or len(value) != count or not all(map(is_number, value)):
        raise ValueError(f"{what} is {short(value)}, expected {count} numbers")
    return [float(v) for v in value]


def number(value: Any, what: str) -> float:
    """One number.

    Raises:
        ValueError: it is something else.
    """
    if not is_number(value):
        raise ValueError(f"{what} is {short(value)}, expected a number")
    return float(value)


def is_number(value: Any) -> bool:
    """Whether it is an int or a float, and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def require(value: Any, expected: Any, what: str) -> None:
    """Refuse a setting that the network cannot follow.

    Raises:
        ValueError: with the setting.
    """
    plain = list(value) if isinstance(value, tuple) else value
    if plain != expected:
        raise ValueError(f"{what} = {short(value)} is not supported, expected {expected!r}")
