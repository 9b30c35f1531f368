"""The options of `segcli train` that say how the network is trained; defaults come from `TrainConfig`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from segcli.cli.numbers import FiniteRange
from segcli.cli.options import MAX_SEED, defaults, split_names
from segcli.config import TrainConfig

F = TypeVar("F", bound=Callable[..., Any])
_DEFAULT = defaults(TrainConfig)
_POSITIVE = click.IntRange(min=1)
_OPTIONS = (
    click.option(
        "--epochs",
        type=_POSITIVE,
        default=None,
        metavar="N",
        help="Passes over the data.  [default: 12]",
    ),
    click.option(
        "--steps",
        type=_POSITIVE,
        default=None,
        metavar="N",
        help="Optimiser steps in place of --epochs.",
    ),
    click.option(
        "--batch-size",
        type=_POSITIVE,
        default=None,
        metavar="N",
        help="Pictures per step.  [default: the model's own]",
    ),
    click.option(
        "--accumulate",
        type=_POSITIVE,
        default=_DEFAULT["accumulate"],
        show_default=True,
        metavar="N",
        help="Batches per step, for steps larger than memory.",
    ),
    click.option(
        "--optimizer",
        type=click.Choice(["sgd", "adamw"]),
        default=None,
        help="[default: the model's own]",
    ),
    click.option(
        "--lr",
        type=FiniteRange(min=0, min_open=True),
        default=None,
        help="Peak learning rate.  [default: the model's own, scaled with the batch size]",
    ),
    click.option(
        "--weight-decay",
        type=FiniteRange(min=0),
        default=None,
        help="[default: the model's own]",
    ),
    click.option(
        "--momentum",
        type=FiniteRange(0, 1, max_open=True),
        default=_DEFAULT["momentum"],
        show_default=True,
        help="Of sgd.",
    ),
    click.option(
        "--schedule",
        type=click.Choice(["cosine", "step"]),
        default=_DEFAULT["schedule"],
        show_default=True,
        help="How the learning rate falls.",
    ),
    click.option(
        "--warmup",
        type=click.IntRange(min=0),
        default=_DEFAULT["warmup"],
        show_default=True,
        metavar="N",
        help="Steps in which it rises.",
    ),
    click.option(
        "--clip",
        type=FiniteRange(min=0),
        default=_DEFAULT["clip"],
        show_default=True,
        help="Largest gradient norm; 0 = any.",
    ),
    click.option(
        "--box-loss",
        type=click.Choice(["smooth-l1", "l1", "giou", "diou", "ciou"]),
        default=_DEFAULT["box_loss"],
        show_default=True,
        help="Of boxes.",
    ),
    click.option(
        "--ema",
        type=FiniteRange(0, 1, min_open=True, max_open=True),
        default=None,
        metavar="DECAY",
        help="Evaluate and save a moving average of the weights, e.g. 0.999.",
    ),
    click.option(
        "--freeze",
        type=click.Choice(["0", "1", "2", "3", "4", "5", "backbone"]),
        default=None,
        help="Stages of the backbone that keep their weights.  "
        "[default: 2 of pre-trained weights with fixed batch norms, else 0]",
    ),
    click.option(
        "--augment",
        multiple=True,
        default=_DEFAULT["augment"],
        callback=split_names,
        metavar="NAMES",
        help="Some of flip, scale, vflip, rotate90, crop, lsj, color, copy-paste, or an empty text for none.  "
        "[default: flip,scale]",
    ),
    click.option(
        "--repeat-threshold",
        type=FiniteRange(0, 1),
        default=_DEFAULT["repeat_threshold"],
        show_default=True,
        metavar="SHARE",
        help="Show pictures of classes rarer than this more often (LVIS: 0.001).",
    ),
    click.option(
        "--max-instances",
        type=_POSITIVE,
        default=None,
        metavar="N",
        help="Most objects of a picture in one step, drawn anew each time; the others do not count as background.  "
        "[default: all]",
    ),
    click.option(
        "--checkpointing",
        is_flag=True,
        help="Less memory, more time: compute the backbone again in the backward pass.",
    ),
    click.option(
        "--compile/--no-compile",
        default=_DEFAULT["compile"],
        help="Let Inductor compile the backbone, a minute or more at every start; needs pictures of one size, so "
        "--augment flip,lsj.  [default: --no-compile; a resumed run keeps its own]",
    ),
    click.option(
        "--eval-every",
        type=_POSITIVE,
        default=_DEFAULT["eval_every"],
        show_default=True,
        metavar="N",
        help="Epochs between validations.",
    ),
    click.option(
        "--eval-batch-size",
        type=_POSITIVE,
        default=_DEFAULT["eval_batch_size"],
        metavar="N",
        help="Pictures per forward pass in validation; may change at a --resume.  [default: 1 on a CPU, 8 on a GPU]",
    ),
    click.option(
        "--patience",
        type=_POSITIVE,
        default=None,
        metavar="N",
        help="End after so many validations without a better mask AP.",
    ),
    click.option(
        "--max-dets",
        type=_POSITIVE,
        default=_DEFAULT["max_dets"],
        show_default=True,
        metavar="N",
        help="Detections per picture in validation.",
    ),
    click.option(
        "--save-every",
        type=FiniteRange(min=0),
        default=_DEFAULT["save_every"],
        show_default=True,
        metavar="SECONDS",
        help="Between checkpoints within an epoch; 0 = after every step.",
    ),
    click.option(
        "--max-bad-steps",
        type=_POSITIVE,
        default=_DEFAULT["max_bad_steps"],
        show_default=True,
        metavar="N",
        help="End after so many steps in a row whose gradient is not finite; single ones are skipped.",
    ),
    click.option(
        "--tensorboard",
        is_flag=True,
        help="Write event files to RUN/tensorboard, too.",
    ),
    click.option(
        "--seed",
        type=click.IntRange(0, MAX_SEED),
        default=_DEFAULT["seed"],
        show_default=True,
        help="Of everything random.",
    ),
    click.option(
        "--workers",
        type=click.IntRange(min=0),
        default=None,
        metavar="N",
        help="Processes that read pictures.  [default: cores less one, at most 4]",
    ),
)


def recipe_options(function: F) -> F:
    """Length, step, optimiser, augmentation, validation, checkpoints and seed."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function
