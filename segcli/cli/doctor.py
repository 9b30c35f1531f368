"""`segcli doctor`: what is here, and whether it works."""

from __future__ import annotations

import json

import click

from segcli.cli.options import common_options


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@common_options
def doctor(as_json: bool) -> int:
    """Show versions and devices, and try the parts that everything needs.

    Exit code 1 if something is broken.

    \b
    Example:
      segcli doctor
    """
    from segcli.console import table
    from segcli.doctor import examine

    findings = examine()
    if as_json:
        click.echo(json.dumps([vars(f) for f in findings], indent=1))
    else:
        rows = [(f.what, f.found, "ok" if f.ok else "BROKEN") for f in findings]
        table("", ["what", "found", ""], rows)
    return 0 if all(f.ok for f in findings) else 1
