"""`segcli models`: what there is, what a file holds, and new random weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from segcli.cli.options import MAX_SEED, common_options, overwrite_option, split_names


@click.group()
@common_options
def models() -> None:
    """List, show and make models.

    \b
    Example:
      segcli models list
    """


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@common_options
def list_models(as_json: bool) -> None:
    """List published weights and architectures.

    \b
    Example:
      segcli models list
    """
    from segcli.console import table
    from segcli.models import ARCHITECTURES
    from segcli.zoo import PUBLISHED

    if as_json:
        click.echo(json.dumps({
            "weights": [vars(w) for w in PUBLISHED.values()],
            "architectures": [{"name": a.name, "summary": a.summary} for a in ARCHITECTURES.values()],
        }, indent=1))  # fmt: skip
        return
    table(
        "Published weights (--model NAME)",
        ["name", "architecture", "box AP", "mask AP", "MB", "licence"],
        [
            (w.name, w.architecture, f"{w.box_ap:.3f}", f"{w.mask_ap:.3f}", f"{w.megabytes:.0f}", w.licence)
            for w in PUBLISHED.values()
        ],
    )  # fmt: skip
    table(
        "Architectures (segcli train --model ARCH: from random weights)",
        ["name", "what it is"],
        [(a.name, a.summary) for a in ARCHITECTURES.values()],
    )


@models.command()
@click.argument("model", metavar="MODEL|ARCH")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@common_options
def show(model: str, as_json: bool) -> None:
    """Show what a checkpoint file, a RUN folder, named weights or an architecture is.

    \b
    Example:
      segcli models show run/best.safetensors
    """
    from segcli.console import table

    facts = _facts(model)
    if as_json:
        click.echo(json.dumps(facts, indent=1, ensure_ascii=False))
    else:
        table(model, ["what", "value"], _rows(facts))


def _facts(model: str) -> dict[str, Any]:
    from segcli.models import ARCHITECTURES, Anchors, MaskRCNN, ModelSpec
    from segcli.zoo import load_model

    if model in ARCHITECTURES:
        row = ARCHITECTURES[model]
        spec = ModelSpec(model, 80, Anchors(), row.conventions)
        parameters = sum(p.numel() for p in MaskRCNN(spec).parameters())
        return {
            "architecture": model,
            "summary": row.summary,
            "parameters": parameters,
            "parameters counted with": "80 classes",
            "recipe": vars(row.recipe),
            "conventions": row.conventions.to_dict(),
        }
    loaded = load_model(model)
    return {
        "architecture": loaded.spec.architecture,
        "parameters": sum(p.numel() for p in loaded.build().parameters()),
        "sha256": loaded.sha256,
        "classes": [
            n
            for k, n in enumerate(loaded.categories.names)
            if not loaded.categories.is_placeholder(k)
        ],
        "anchors": [list(s) for s in loaded.spec.anchors.sizes],
        "conventions": loaded.spec.conventions.to_dict(),
        "info": {k: v for k, v in loaded.info.items() if k != "categories"},
    }


def _rows(facts: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested records as `record.field` rows."""
    for name, value in facts.items():
        if isinstance(value, dict):
            yield from _rows(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            yield prefix + name, ", ".join(map(str, value))
        else:
            yield prefix + name, f"{value:,}" if type(value) is int else str(value)


@models.command()
@click.argument("architecture", metavar="ARCH")
@click.option(
    "--classes", required=True, metavar="N|NAMES", help="How many classes, or their names: cat,dog."
)
@click.option(
    "--seed",
    type=click.IntRange(0, MAX_SEED),
    default=0,
    show_default=True,
    help="The same seed gives the same weights.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    metavar="FILE",
    help="A .safetensors file.",
)
@overwrite_option
@common_options
def init(architecture: str, classes: str, seed: int, output: Path, overwrite: bool) -> None:
    """Make random weights of an architecture.

    \b
    Example:
      segcli models init mask-rcnn-nano --classes nut,bolt --output new.safetensors
    """
    from segcli.categories import Categories
    from segcli.zoo import new_model, save_model

    if output.suffix.lower() != ".safetensors":
        raise click.UsageError(f"--output {output}: expected a name that ends in .safetensors")
    if output.exists() and not overwrite:
        raise click.UsageError(
            f"--output {output}: exists; choose another name or give --overwrite"
        )
    model = new_model(architecture, Categories.from_names(_names(classes)), seed=seed)
    save_model(output, model)
    click.echo(f"{output}: {architecture}, classes {', '.join(model.categories.names)}")


def _names(classes: str) -> tuple[str, ...]:
    if classes.strip().isdecimal():
        count = int(classes)
        if not 1 <= count <= 10_000:
            raise click.UsageError(f"--classes {count}: expected 1 to 10000")
        return tuple(f"class{k + 1}" for k in range(count))
    names = split_names(None, None, classes)
    if not names or len(set(names)) != len(names):
        raise click.UsageError(
            f"--classes {classes!r}: expected a number, or different names with commas between"
        )
    return names
