"""`segcli models convert`: weights of any family as safetensors that say all about themselves."""

from __future__ import annotations

from pathlib import Path

import click

from segcli.cli.options import common_options, conventions_option, overwrite_option, split_names


@click.command()
@click.argument("model", metavar="MODEL")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    metavar="FILE",
    help="A .safetensors file.",
)
@conventions_option
@click.option(
    "--classes",
    callback=split_names,
    metavar="A,B",
    help="Names of the classes in the order of the heads.  [default: what the file tells]",
)
@click.option(
    "--licence", metavar="TEXT", help="Of the weights.  [default: the publisher's, if known]"
)
@click.option(
    "--source",
    metavar="TEXT",
    help="Where the weights are from.  [default: the publisher's address, if known]",
)
@overwrite_option
@common_options
def convert(
    model: str, output: Path, conventions: str | None, classes: tuple[str, ...],
    licence: str | None, source: str | None, overwrite: bool,
) -> None:  # fmt: skip
    """Write weights of any family as our own safetensors, with conventions, classes, licence and source.

    The tensors are the same, and so are all predictions; no config and no --conventions is needed from then on.

    \b
    Example:
      segcli models convert model_final.pth --conventions detectron2-r50 --output trees.safetensors
    """
    from segcli.output import refuse_overlap
    from segcli.weights.converting import converted
    from segcli.zoo import load_model, save_model

    check_weights_output(output, overwrite)
    if Path(model).is_file():
        refuse_overlap(Path(model), output)
    loaded = load_model(model, conventions)
    written = converted(loaded, classes=classes, licence=licence, source=source)
    save_model(output, written)
    click.echo(
        f"{output}: {written.spec.architecture}, {len(written.categories)} classes, "
        f"licence {written.info.get('licence', 'unknown (--licence adds it)')}, "
        f"source {written.info.get('source', 'unknown (--source adds it)')}"
    )


def check_weights_output(output: Path, overwrite: bool) -> None:
    """Refuse a name that is no safetensors file's, and one that is taken."""
    if output.suffix.lower() != ".safetensors":
        raise click.UsageError(f"--output {output}: expected a name that ends in .safetensors")
    if output.exists() and not overwrite:
        raise click.UsageError(
            f"--output {output}: exists; choose another name or give --overwrite"
        )
