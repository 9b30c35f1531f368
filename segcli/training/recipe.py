"""What the settings that nobody gave resolve to: the architecture's own recipe, scaled to this run's steps."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import cast, get_args

from segcli.config import TrainConfig
from segcli.errors import UsageError
from segcli.models import ARCHITECTURES
from segcli.models.training.options import BoxKind, LossConfig
from segcli.training.start import frozen_stages
from segcli.zoo import LoadedModel


def resolve_recipe(config: TrainConfig, model: LoadedModel, *, processes: int = 1) -> TrainConfig:
    """Fill in the architecture's own batch size, optimiser and learning rate.

    The learning rate grows with the pictures of a step, those of all processes and accumulated batches: linearly for
    SGD (Goyal et al. 2017), with the square root for AdamW (Malladi et al. 2022).
    """
    recipe = ARCHITECTURES[model.spec.architecture].recipe
    batch_size = config.batch_size or recipe.batch_size
    optimizer = config.optimizer or recipe.optimizer
    same = optimizer == recipe.optimizer
    lr = config.lr
    if lr is None:
        base = recipe.lr if same else {"sgd": 0.00125 * recipe.batch_size, "adamw": 1e-4}[optimizer]
        growth = batch_size * config.accumulate * processes / recipe.batch_size
        lr = base * (growth if optimizer == "sgd" else growth**0.5)
    decay = config.weight_decay
    if decay is None:
        decay = recipe.weight_decay if same else 1e-4
    return replace(
        config,
        batch_size=batch_size,
        optimizer=optimizer,
        lr=lr,
        weight_decay=decay,
        freeze=frozen_stages(config.freeze, model),
    )


def losses_of(config: TrainConfig) -> LossConfig:
    """The variant that `--box-loss` names, of the RPN and the box head alike where both have it."""
    if config.box_loss == "smooth-l1":
        return LossConfig()
    if config.box_loss == "l1":
        return LossConfig(rpn_smooth_l1_beta=0.0, box_smooth_l1_beta=0.0)
    if config.box_loss not in get_args(BoxKind):
        raise UsageError(
            f"--box-loss {config.box_loss}: expected smooth-l1, l1, giou, diou or ciou"
        )
    return LossConfig(box_kind=cast(BoxKind, config.box_loss))


def describe_step(config: TrainConfig, processes: int) -> str:
    """Pictures of a step: `8`, or `16 (2 processes × 4 × 2 batches)`."""
    size = config.batch_size or 0
    if processes == config.accumulate == 1:
        return str(size)
    workers = f"{processes} processes × " if processes > 1 else ""
    batches = f" × {config.accumulate} batches" if config.accumulate > 1 else ""
    return f"{size * config.accumulate * processes} ({workers}{size}{batches})"


def describe_lr(
    config: TrainConfig, given: float | None, model: LoadedModel, processes: int
) -> str:
    """The peak learning rate, and how it follows from the recipe's: `0.02 (0.0025 × 16/2)`.

    Args:
        config: resolved.
        given: as the user gave it.
        model: of which architecture.
        processes: that train together.
    """
    recipe = ARCHITECTURES[model.spec.architecture].recipe
    pictures = (config.batch_size or 0) * config.accumulate * processes
    if given is not None or config.optimizer != recipe.optimizer or pictures == recipe.batch_size:
        return f"{config.lr:.3g}"
    ratio = f"{pictures}/{recipe.batch_size}"
    return (
        f"{config.lr:.3g} ({recipe.lr:g} × {ratio if config.optimizer == 'sgd' else f'√({ratio})'})"
    )


def warmup_of(config: TrainConfig, steps: int) -> int:
    """Steps of warm-up; at most a third of a short run, so that the learning rate also reaches its peak and falls."""
    return min(config.warmup, steps // 3)


def steps_of(config: TrainConfig, batches: int) -> int:
    """Optimiser steps in all: `steps`, else `epochs` passes.

    Args:
        config: resolved.
        batches: of an epoch, in each process.
    """
    if config.steps is not None:
        return config.steps
    return (config.epochs or 12) * math.ceil(batches / config.accumulate)
