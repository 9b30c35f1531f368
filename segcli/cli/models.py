"""`segcli models`: what there is, what a file holds, converting, and new random weights."""

from __future__ import annotations

from pathlib import Path

import click

from segcli.cli.models_convert import check_weights_output, convert
from segcli.cli.models_fetch import fetch
from segcli.cli.models_list import list_models
from segcli.cli.models_show import show
from segcli.cli.models_verify import verify
from segcli.cli.options import MAX_SEED, common_options, overwrite_option, split_names


@click.group()
@common_options
def models() -> None:
    """List, show, convert and make models.

    \b
    Example:
      segcli models list
    """


models.add_command(list_models)
models.add_command(fetch)
models.add_command(verify)
models.add_command(show)
models.add_command(convert)


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

    check_weights_output(output, overwrite)
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
