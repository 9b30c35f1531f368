"""One epoch, on one screen: data -> losses -> step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from segcli.data.training_set import Batch
from segcli.device import Compute
from segcli.errors import TrainingError
from segcli.models import MaskRCNN
from segcli.training.optim import Schedule, set_lr


@dataclass
class Progress:
    """Where a run stands; stored in `last.ckpt`.

    Attributes:
        epoch: epochs finished.
        step: optimiser steps done.
        seconds: spent in training steps, loading included, evaluation apart.
        best_ap: best mask AP on the validation set, None before the first.
        best_epoch: when that was.
    """

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    best_ap: float | None = None
    best_epoch: int | None = None


@dataclass(frozen=True)
class StepReport:
    """What one step did: losses by name, learning rate, gradient norm before clipping, pictures."""

    losses: dict[str, float]
    lr: float
    gradient_norm: float
    pictures: int


def train_one_epoch(
    network: MaskRCNN,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[Batch],
    progress: Progress,
    *,
    schedule: Schedule,
    peak_lr: float,
    clip: float,
    compute: Compute,
    report: Callable[[StepReport], None],
) -> None:
    """Train until the batches or the schedule's steps are used up.

    Raises:
        TrainingError: a loss is not finite; names the pictures of the batch.
    """
    network.train()
    started = time.monotonic()
    for batch in batches:
        if not batch.sizes:
            continue
        lr = peak_lr * schedule.factor(progress.step)
        set_lr(optimizer, lr)
        images, targets = to_device(batch, compute.device)
        with compute.autocast():
            losses = network(images, batch.sizes, targets)
        assert isinstance(losses, dict)
        total = torch.stack([loss.float() for loss in losses.values()]).sum()
        check_finite(losses, batch, progress.step)
        optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(network.parameters(), clip if clip > 0 else float("inf"))
        check_gradient(norm, batch, progress.step)
        optimizer.step()
        progress.step += 1
        progress.seconds += time.monotonic() - started
        values = {name: float(loss.detach()) for name, loss in losses.items()}
        report(StepReport(values, lr, float(norm), len(batch.sizes)))
        if progress.step >= schedule.steps:
            break
        started = time.monotonic()


def to_device(batch: Batch, device: torch.device) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Pictures and targets where the network is."""
    images = batch.images.to(device, non_blocking=True, memory_format=torch.channels_last)
    targets = [
        {name: value.to(device, non_blocking=True) for name, value in target.items()}
        for target in batch.targets
    ]
    return images, targets


def check_gradient(norm: Tensor, batch: Batch, step: int) -> None:
    """Stop before a broken gradient of a finite loss reaches the weights.

    Raises:
        TrainingError: names the step and the pictures.
    """
    if not bool(torch.isfinite(norm)):
        raise TrainingError(f"step {step + 1}: the gradient is {float(norm)} on {_blame(batch)}")


def _blame(batch: Batch) -> str:
    return (
        f"{', '.join(batch.file_names)}; the last good checkpoint is kept; "
        "look at these pictures' annotations, or lower --lr"
    )


def check_finite(losses: dict[str, Tensor], batch: Batch, step: int) -> None:
    """Stop before a broken loss reaches the weights.

    Raises:
        TrainingError: names the loss, the step, and the pictures.
    """
    broken = [name for name, loss in losses.items() if not bool(torch.isfinite(loss))]
    if broken:
        value = float(losses[broken[0]].detach())
        raise TrainingError(f"step {step + 1}: {broken[0]} is {value} on {_blame(batch)}")
