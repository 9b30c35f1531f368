"""`segcli models verify`: published weights measured here, beside their published figures."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from segcli.cli.numbers import FiniteRange
from segcli.cli.options import batch_size_option, common_options, exact_options
from segcli.config import PredictConfig

if TYPE_CHECKING:
    from segcli.evaluation.verification import Verification

_FAILED, _SOME_LEFT_OUT = 1, 3


@click.command(context_settings={"default_map": {"precision": "fp32"}})
@click.argument("name", metavar="NAME")
@click.argument("dataset", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where the pictures lie.  [default: beside DATASET]",
)
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="Measure on the first N pictures."
)
@click.option(
    "--within",
    type=FiniteRange(min=0),
    default=0.2,
    show_default=True,
    metavar="POINTS",
    help="Largest difference of AP that passes; judged on the whole of COCO val2017 alone.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@batch_size_option
@exact_options
@common_options
def verify(name: str, as_json: bool, **options: Any) -> int:
    """Measure the published weights NAME on DATASET, and print the published AP beside it.

    Exit code 1: on COCO val2017 the AP differ by more than --within. On other pictures the difference is printed and
    not judged. Exit code 3: some pictures could not be read.

    \b
    Example:
      segcli models verify torchvision/mask-rcnn-r50-fpn-coco instances_val2017.json --images val2017
    """
    from segcli.evaluation.verification import verify as measure

    names = {field.name for field in fields(PredictConfig)}
    settings = {key: value for key, value in options.items() if key in names and key != "limit"}
    found = measure(
        name,
        options["dataset"],
        PredictConfig(model=name, **settings),
        images=options["images"],
        limit=options["limit"],
        within=options["within"],
        roi_align=options["roi_align"],
    )
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=1, ensure_ascii=False))
    else:
        _print(found)
    if found.verdict == "differs":
        return _FAILED
    return _SOME_LEFT_OUT if found.failed_pictures else 0


def _print(found: Verification) -> None:
    from segcli.console import say, table

    rows = [
        (row.what, _points(row.published), _points(row.measured), _points(row.difference, "+"))
        for row in found.rows
    ]
    title = f"{found.weights.name} on {found.pictures} pictures of {found.source}, AP in points"
    table(title, ("", "published", "measured", "difference"), rows)
    say(found.line())


def _points(value: float | None, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign}.1f}"
