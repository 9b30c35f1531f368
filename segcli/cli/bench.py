"""`segcli bench`: this machine's speed, against the peers in the same run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from segcli.bench.predictors import CONTESTANTS, STOCK
from segcli.bench.trainers import CONTESTANTS as TRAINERS
from segcli.bench.workloads import WORKLOADS
from segcli.cli.numbers import FiniteRange
from segcli.cli.options import (
    common_options,
    device_option,
    max_size_option,
    min_size_option,
    roi_align_option,
)
from segcli.config import PredictConfig


@click.group()
@common_options
def bench() -> None:
    """Time this machine, against the peers in the same run.

    \b
    Example:
      segcli bench roi-align --quick
      segcli bench predict --quick
      segcli bench train --quick
    """


_json_option = click.option(
    "--json", "as_json", is_flag=True, help="JSON on stdout in place of the tables."
)
_threads_option = click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=None,
    metavar="N",
    help="CPU threads of each contestant.  [default: torch's own choice]",
)


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
@_json_option
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


@bench.command("predict")
@click.argument(
    "pictures",
    metavar="PICTURES",
    required=False,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)
@click.option(
    "--model",
    default=None,
    metavar="MODEL",
    help="Weights of a torchvision R50-FPN: file, RUN folder or name.  [default with --quick: random ones]",
)
@click.option(
    "--contestant",
    "contestants",
    type=click.Choice(CONTESTANTS),
    multiple=True,
    metavar="NAME",
    help=f"Only this one beside {STOCK}; may be given again. One of: {', '.join(CONTESTANTS)}.  [default: all]",
)
@click.option(
    "--score",
    "scores",
    type=FiniteRange(0, 1),
    multiple=True,
    metavar="S",
    help=f"Lowest score kept; may be given again, a table for each.  [default: {PredictConfig().score}]",
)
@click.option(
    "--repeat",
    type=click.IntRange(min=1),
    default=None,
    metavar="N",
    help="Rounds in which all do the whole job in turn, after an untimed one.  [default: 5; 1 with --quick]",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=None,
    metavar="N",
    help="Only the first N pictures.",
)
@_threads_option
@min_size_option
@max_size_option
@click.option(
    "--quick",
    is_flag=True,
    help="Tiny sizes and made-up inputs: shows that all runs, says nothing of speed.",
)
@_json_option
@device_option
@common_options
def time_predict(as_json: bool, **options: Any) -> int:
    """Time the whole job, decoding to RLE on disk, against stock torchvision.

    All contestants do the same pictures with the same weights, one after another in every round, each in a process of
    its own. Memory, stages and differences from stock's detections are told; exit code 1 if one that computes in fp32
    differs. What cannot run here is listed with the reason. The fastest convolution of the machine is measured too,
    and the time that the network's trunk would need at that speed stands beside the time of the job.

    \b
    Example:
      segcli bench predict photos --model torchvision/mask-rcnn-r50-fpn-coco --limit 20
      segcli bench predict photos --model weights.safetensors --score 0.05 --score 0.5 --json > bench.json
      segcli bench predict --quick
    """
    from segcli.bench import predict_report
    from segcli.bench.predict import Settings, run

    found = run(Settings(**options))
    if as_json:
        click.echo(predict_report.as_json(found), nl=False)
    else:
        predict_report.show(found)
    return 1 if found.wrong else 0


@bench.command("train")
@click.argument(
    "dataset", metavar="DATASET", required=False, type=click.Path(exists=True, path_type=Path)
)
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder of the pictures.  [default: looked for near DATASET]",
)
@click.option(
    "--model",
    default="mask-rcnn-r50-fpn",
    show_default=True,
    metavar="MODEL|ARCH",
    help="Weights to train, or an architecture for random ones.",
)
@click.option(
    "--contestant",
    "contestants",
    type=click.Choice(TRAINERS),
    multiple=True,
    metavar="NAME",
    help=f"Only this one beside {STOCK}; may be given again. One of: {', '.join(TRAINERS)}.  [default: all]",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    metavar="N",
    help="Pictures per step.",
)
@click.option(
    "--pictures",
    type=click.IntRange(min=1),
    default=None,
    metavar="N",
    help="Train on the first N pictures, again and again.  [default: one batch]",
)
@click.option(
    "--instances",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Only pictures with N objects or more; those that --quick makes up have as many.",
)
@click.option(
    "--repeat",
    type=click.IntRange(min=1),
    default=None,
    metavar="N",
    help="Rounds in which all take a step in turn, after an untimed one.  [default: 5; 1 with --quick]",
)
@_threads_option
@min_size_option
@max_size_option
@click.option(
    "--quick",
    is_flag=True,
    help="Tiny sizes and, without DATASET, made-up pictures: shows that all runs, says nothing of speed.",
)
@_json_option
@device_option
@common_options
def time_train(as_json: bool, **options: Any) -> int:
    """Time training steps against stock torchvision with its reference loop.

    All contestants train the same network on the same pictures, with equal numbers of sampled anchors and RoIs, one
    step after another in every round, each in a process of its own. Losses of the first batch are compared with
    stock's, drawn samples being equal; exit code 1 if those of one that computes in fp32 differ.

    \b
    Example:
      segcli bench train data/train.json --min-size 480 --max-size 640 --threads 2
      segcli bench train data/train.json --model mask-rcnn-nano --batch-size 8 --json > bench.json
      segcli bench train --quick
    """
    from segcli.bench import train_report
    from segcli.bench.train import TrainSettings, run

    found = run(TrainSettings(**options))
    if as_json:
        click.echo(train_report.as_json(found), nl=False)
    else:
        train_report.show(found)
    return 1 if found.wrong else 0
