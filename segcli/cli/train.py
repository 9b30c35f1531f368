"""`segcli train`: from a dataset to weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from segcli.cli.options import (
    MAX_SEED,
    common_options,
    compute_options,
    config_option,
    defaults,
    overwrite_option,
    split_names,
)
from segcli.config import TrainConfig

if TYPE_CHECKING:
    from segcli.training.job import Job
    from segcli.training.loop import Progress

_DEFAULT = defaults(TrainConfig)
_POSITIVE = click.IntRange(min=1)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="RUN",
    help="Folder of the run.",
)
@click.option(
    "--images",
    type=_FOLDER,
    metavar="DIR",
    help="Folder of the pictures.  [default: looked for near DATASET]",
)
@click.option(
    "--val",
    type=click.Path(path_type=Path),
    metavar="DATASET",
    help="Validate on it, and keep the best weights by mask AP.",
)
@click.option(
    "--val-images", type=_FOLDER, metavar="DIR", help="Folder of the validation pictures."
)
@click.option(
    "--model",
    default=_DEFAULT["model"],
    show_default=True,
    metavar="MODEL|ARCH",
    help="Weights to start from, or an architecture for random ones (`segcli models list`).",
)
@click.option(
    "--epochs",
    type=_POSITIVE,
    default=None,
    metavar="N",
    help="Passes over the data.  [default: 12]",
)
@click.option(
    "--steps",
    type=_POSITIVE,
    default=None,
    metavar="N",
    help="Optimiser steps in place of --epochs.",
)
@click.option(
    "--batch-size",
    type=_POSITIVE,
    default=None,
    metavar="N",
    help="Pictures per step.  [default: the model's own]",
)
@click.option(
    "--optimizer",
    type=click.Choice(["sgd", "adamw"]),
    default=None,
    help="[default: the model's own]",
)
@click.option(
    "--lr",
    type=click.FloatRange(min=0, min_open=True),
    default=None,
    help="Peak learning rate.  [default: the model's own, scaled with the batch size]",
)
@click.option(
    "--weight-decay", type=click.FloatRange(min=0), default=None, help="[default: the model's own]"
)
@click.option(
    "--momentum",
    type=click.FloatRange(0, 1, max_open=True),
    default=_DEFAULT["momentum"],
    show_default=True,
    help="Of sgd.",
)
@click.option(
    "--schedule",
    type=click.Choice(["cosine", "step"]),
    default=_DEFAULT["schedule"],
    show_default=True,
    help="How the learning rate falls.",
)
@click.option(
    "--warmup",
    type=click.IntRange(min=0),
    default=_DEFAULT["warmup"],
    show_default=True,
    metavar="N",
    help="Steps in which it rises.",
)
@click.option(
    "--clip",
    type=click.FloatRange(min=0),
    default=_DEFAULT["clip"],
    show_default=True,
    help="Largest gradient norm; 0 = any.",
)
@click.option(
    "--augment",
    multiple=True,
    default=_DEFAULT["augment"],
    callback=split_names,
    metavar="NAMES",
    help="Some of flip,scale, or an empty text for none.  [default: flip,scale]",
)
@click.option(
    "--eval-every",
    type=_POSITIVE,
    default=_DEFAULT["eval_every"],
    show_default=True,
    metavar="N",
    help="Epochs between validations.",
)
@click.option(
    "--max-dets",
    type=_POSITIVE,
    default=_DEFAULT["max_dets"],
    show_default=True,
    metavar="N",
    help="Detections per picture in validation.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, MAX_SEED),
    default=_DEFAULT["seed"],
    show_default=True,
    help="Of everything random.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=None,
    metavar="N",
    help="Processes that read pictures.  [default: cores less one, at most 4]",
)
@click.option(
    "--crowd-as-instance", is_flag=True, help="Train on iscrowd annotations as on any other."
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on after the last epoch of RUN; starts anew where RUN is empty.",
)
@compute_options
@overwrite_option
@config_option
@common_options
@click.pass_context
def train(ctx: click.Context, /, **options: Any) -> int:
    """Train or fine-tune a model on DATASET.

    DATASET is a COCO json, or a folder that holds one. RUN gets best.safetensors (the best weights by mask AP; without
    --val the last), last.ckpt (for --resume), metrics.jsonl and config.toml. Only RUN/best.safetensors is needed to
    predict: `--model RUN` names it.

    \b
    Example:
      segcli train data/train.json --val data/val.json --model mask-rcnn-nano --epochs 30 --output run
    """
    from segcli.data.locate import open_dataset
    from segcli.evaluation.model import whole_truth
    from segcli.files import folder_lock
    from segcli.training.job import run
    from segcli.training.setup import prepare

    if options["resume"] and options["overwrite"]:
        raise click.UsageError("found both --resume and --overwrite; give one of them")
    _choose_length(ctx, options)
    crowd, folder = options["crowd_as_instance"], options["output"]
    data = open_dataset(options["dataset"], options["images"], crowd_as_instance=crowd)
    val = None
    if options["val"] is not None:
        val = open_dataset(options["val"], options["val_images"], crowd_as_instance=crowd)
        val = whole_truth(
            val, crowd_as_instance=crowd
        )  # as `segcli eval`: absent pictures are misses
    names = TrainConfig.__dataclass_fields__
    config = TrainConfig(**{k: v for k, v in options.items() if k in names})
    with folder_lock(folder):
        job = prepare(
            data, val, config, folder=folder, resume=options["resume"],
            overwrite=options["overwrite"], roi_align=options["roi_align"],
        )  # fmt: skip
        _report(job, run(job))
    return 0


def _choose_length(ctx: click.Context, options: dict[str, Any]) -> None:
    """--epochs or --steps; the one that was given as a flag wins over the other in a config file."""
    given = [
        n for n in ("epochs", "steps") if ctx.get_parameter_source(n) == ParameterSource.COMMANDLINE
    ]
    if len(given) == 2:
        raise click.UsageError("found both --epochs and --steps; give one of them", ctx)
    if given:
        options["steps" if given == ["epochs"] else "epochs"] = None


def _report(job: Job, progress: Progress) -> None:
    ap = (
        ""
        if progress.best_ap is None
        else f", best mask AP {progress.best_ap:.3f} after epoch {progress.best_epoch}"
    )
    click.echo(
        f"{progress.step} steps in {progress.seconds:.0f} s{ap}; weights: {job.folder / 'best.safetensors'}"
    )
