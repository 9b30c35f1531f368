"""`segcli models fetch`: published weights into the cache."""

from __future__ import annotations

import click

from segcli.cli.options import common_options
from segcli.console import escape, warn


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME…")
@click.option(
    "--mirror",
    metavar="URL",
    help="Server that keeps the publishers' files by the same paths.  [default: the publisher's]",
)
@common_options
def fetch(names: tuple[str, ...], mirror: str | None) -> None:
    """Download published weights, and print where they are.

    What is in the cache already is not asked for again. The hash in the file's published name is checked; where it is
    no SHA-256, that of the first download is kept and later ones must have it. With SEGCLI_OFFLINE=1 in the
    environment nothing is downloaded.

    \b
    Example:
      segcli models fetch detectron2/mask-rcnn-r50-fpn-3x
      segcli models fetch torchvision/mask-rcnn-r50-fpn-coco --mirror https://files.example.org/weights
    """
    from segcli.published import find
    from segcli.published.fetching import fetch_weights

    for weights in [find(name) for name in dict.fromkeys(names)]:
        if weights.reason is not None:
            warn(f"{weights.name}: segcli cannot run these weights ({weights.reason})")
        click.echo(f"{weights.name}: {escape(fetch_weights(weights, mirror=mirror))}")
