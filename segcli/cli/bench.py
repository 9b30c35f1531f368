"""`segcli bench`: this machine's speed, against the peers in the same run."""

from __future__ import annotations

from typing import Any

import click

from segcli.bench.workloads import WORKLOADS
from segcli.cli.options import common_options, device_option, roi_align_option


@click.group()
@common_options
def bench() -> None:
    """Time this machine, against the peers in the same run.

    \b
    Example:
      segcli bench roi-align --quick
    """


@bench.command("roi-align")
@click.option(
    "--workload",
    "workloads",
    type=click.Choice(list(WORKLOADS)),
    multiple=True,
    metavar="NAME",
    help=f"Only this one; may be given again. One of: {', '.join(WORKLOADS)}.  [default: all]",
)
@click.option(
    "--repeat",
    type=click.IntRange(min=1),
    default=None,
    metavar="N",
    help="Rounds in which all take turns.  [default: 5 to 100, as fit into 6 s (GPU: 1.5 s); 3 with --quick]",
)
@click.option(
    "--quick", is_flag=True, help="Tiny sizes: shows that all runs, says nothing of speed."
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=None,
    metavar="N",
    help="CPU threads.  [default: torch's own choice]",
)
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout in place of the tables.")
@roi_align_option
@device_option
@common_options
def time_roi_align(as_json: bool, roi_align: str, **options: Any) -> int:
    """Time RoIAlign, forward and backward, against torchvision's.

    Every contestant is compared with torchvision's operator in fp32 in the same run; exit code 1 if one of ours is off.
    On a GPU three states are timed: `cold` (L2 cache flushed) and `warm` are GPU time alone, `call` is the wall clock
    of a call on an idle GPU.

    \b
    Example:
      segcli bench roi-align
      segcli bench roi-align --workload box --workload train-box --repeat 20 --json > bench.json
    """
    from segcli.bench import report
    from segcli.bench.roi_align import Settings, run

    found = run(Settings(backend=roi_align, **options))
    if as_json:
        click.echo(report.as_json(found), nl=False)
    else:
        report.show(found)
    return 1 if found.wrong else 0
