"""What a checkpoint says about the network it belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from segcli.models.conventions import Conventions

SCHEMA = 1


@dataclass(frozen=True)
class Anchors:
    """Anchor boxes of the region proposal network.

    Attributes:
        sizes: per pyramid level (P2 … P6), side lengths in pixels of the network's input.
        aspect_ratios: height / width; the same on every level.
    """

    sizes: tuple[tuple[int, ...], ...] = ((32,), (64,), (128,), (256,), (512,))
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)


@dataclass(frozen=True)
class ModelSpec:
    """Everything needed to build the network that a state dict fits.

    Attributes:
        architecture: a name in `ARCHITECTURES`.
        classes: foreground slots of the heads; their rows are those of `conventions.numerics.class_layout`.
        anchors: of the region proposal network.
        conventions: numeric choices.
    """

    architecture: str
    classes: int
    anchors: Anchors
    conventions: Conventions

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "schema": SCHEMA,
            "architecture": self.architecture,
            "classes": self.classes,
            "anchor_sizes": [list(level) for level in self.anchors.sizes],
            "anchor_aspect_ratios": list(self.anchors.aspect_ratios),
            "conventions": self.conventions.to_dict(),
        }

    @classmethod
    def from_dict(cls, table: dict[str, Any]) -> ModelSpec:
        """Read what `to_dict` wrote.

        Raises:
            ValueError: another schema, or a field is missing.
        """
        if table.get("schema") != SCHEMA:
            raise ValueError(
                f"model record of schema {table.get('schema')!r}, this program reads {SCHEMA}"
            )
        try:
            anchors = Anchors(
                tuple(tuple(int(s) for s in level) for level in table["anchor_sizes"]),
                tuple(float(r) for r in table["anchor_aspect_ratios"]),
            )
            return cls(
                architecture=str(table["architecture"]),
                classes=int(table["classes"]),
                anchors=anchors,
                conventions=Conventions.from_dict(table["conventions"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"damaged model record ({error})") from error


def anchors_for_boxes(side_lengths: Sequence[float], levels: int = 5) -> Anchors:
    """Anchors that cover the boxes of a dataset, one size per level, an octave apart.

    The smallest anchor follows the small boxes, so that cells of 10 pixels are found as well as cars; it is raised
    where the largest boxes would otherwise lie above the last level.

    Args:
        side_lengths: sqrt(width × height) of the boxes, in pixels of the network's input.
        levels: pyramid levels.
    """
    if not side_lengths:
        return Anchors()
    ordered = sorted(side_lengths)
    small = ordered[int(0.1 * (len(ordered) - 1))]
    large = ordered[int(0.99 * (len(ordered) - 1))]
    first = max(small, large / 2**levels, 6.0)
    return Anchors(tuple((round(first * 2**level),) for level in range(levels)))
