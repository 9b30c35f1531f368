"""Flags that say how objects are drawn."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import click

from segcli.cli.numbers import FiniteRange
from segcli.cli.options import defaults
from segcli.config import DrawConfig

_DRAW = defaults(DrawConfig)

DRAW_OPTIONS = (
    click.option(
        "--draw-score",
        type=FiniteRange(0, 1),
        default=_DRAW["draw_score"],
        show_default=True,
        help="Lowest score that is drawn.",
    ),
    click.option(
        "--style",
        type=click.Choice(["fill", "outline"]),
        default=_DRAW["style"],
        show_default=True,
        help="Filled masks with outline, or outlines alone.",
    ),
    click.option(
        "--color-by",
        type=click.Choice(["class", "instance"]),
        default=_DRAW["color_by"],
        show_default=True,
        help="One colour per class, or per object.",
    ),
    click.option(
        "--opacity",
        type=FiniteRange(0, 1),
        default=_DRAW["opacity"],
        show_default=True,
        help="Of the fill.",
    ),
    click.option(
        "--labels/--no-labels",
        default=_DRAW["labels"],
        show_default=True,
        help="Write class and score on each object.",
    ),
)


def draw_config(options: dict[str, Any]) -> DrawConfig:
    """What the flags say."""
    return DrawConfig(**{f.name: options[f.name] for f in fields(DrawConfig)})
