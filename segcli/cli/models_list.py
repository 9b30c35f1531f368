"""`segcli models list`: embedded weights, published ones of the three families, and architectures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from segcli.cli.options import common_options
from segcli.console import say, table
from segcli.embedded import EMBEDDED
from segcli.published import FAMILIES, PUBLISHED, PublishedWeights


@click.command("list")
@click.option("--family", type=click.Choice(FAMILIES), help="Only the weights of one family.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@common_options
def list_models(family: str | None, as_json: bool) -> None:
    """List embedded and published weights, and architectures.

    AP is the publisher's own, in points, on the validation part of the dataset trained for (COCO unless the name says
    otherwise); GB is the memory of training, MB the size of the download. A dash: not published.

    \b
    Example:
      segcli models list
      segcli models list --family mmdetection --json
    """
    weights = [w for w in PUBLISHED.values() if family in (None, w.family)]
    if as_json:
        click.echo(json.dumps(_facts(weights), indent=1, ensure_ascii=False))
        return
    if family is None:
        _print_embedded()
    for name in FAMILIES:
        _print_family(name, [w for w in weights if w.family == name])
    if family is None:
        _print_architectures()
    say(
        "--json also gives the dataset, the address, the file's hash and the page that each row was read from"
    )


def _facts(weights: list[PublishedWeights]) -> dict[str, Any]:
    from segcli.models import ARCHITECTURES

    return {
        "embedded": [w.to_json() for w in EMBEDDED.values()],
        "weights": [w.to_json() for w in weights],
        "architectures": [{"name": a.name, "summary": a.summary} for a in ARCHITECTURES.values()],
    }


def _print_embedded() -> None:
    table(
        "Embedded weights (--model NAME; they come with segcli, no download; AP by their model cards)",
        ["name", "architecture", "finds", "box AP", "mask AP", "MB", "licence"],
        [
            (
                w.name, w.architecture, w.finds, _number(100 * w.box_ap, 1),
                _number(100 * w.mask_ap, 1), _number(w.megabytes, 0), w.licence,
            )
            for w in EMBEDDED.values()
        ],
    )  # fmt: skip


def _print_family(name: str, weights: list[PublishedWeights]) -> None:
    runs = [w for w in weights if w.reason is None]
    others = [w for w in weights if w.reason is not None]
    columns = ["name", "backbone", "schedule", "box AP", "mask AP", "GB"]
    if runs:
        title = (
            f"{name}: published weights that segcli runs (--model NAME; licence {_licences(runs)})"
        )
        table(title, [*columns, "MB"], [(*_cells(w), _number(w.megabytes, 0)) for w in runs])
    if others:
        title = f"{name}: published weights that segcli cannot run (licence {_licences(others)})"
        table(title, columns, _by_reason(others, len(columns)))


def _by_reason(weights: list[PublishedWeights], columns: int) -> Iterator[tuple[str, ...]]:
    """Rows below a line that says why, since names and reasons together are wider than a terminal."""
    for reason in dict.fromkeys(w.reason for w in weights):
        yield (f"supported: no ({reason})", *[""] * (columns - 1))
        yield from (_cells(w) for w in weights if w.reason == reason)


def _print_architectures() -> None:
    from segcli.models import ARCHITECTURES

    table(
        "Architectures (segcli train --model ARCH: from random weights)",
        ["name", "what it is"],
        [(a.name, a.summary) for a in ARCHITECTURES.values()],
    )


def _cells(w: PublishedWeights) -> tuple[str, ...]:
    aps = (_number(ap and 100 * ap, 1) for ap in (w.box_ap, w.mask_ap))
    return w.name, w.backbone, w.schedule or "–", *aps, _number(w.training_gb, 1)


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _licences(weights: list[PublishedWeights]) -> str:
    return ", ".join(sorted({w.licence or "not stated" for w in weights}))
