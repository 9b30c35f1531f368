"""Training steps, on one screen: data -> losses -> step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn

from segcli.data.batch import Batch
from segcli.device import Compute
from segcli.training.memory import memory_errors_named
from segcli.training.optim import Schedule, set_lr, step_unless
from segcli.training.parallel import LossNetwork
from segcli.training.progress import Progress
from segcli.training.state import TrainState
from segcli.training.steps import StepReport
from segcli.training.world import ALONE, World


@dataclass(frozen=True, eq=False)
class StepRules:
    """How a step is made; constant through a run.

    Attributes:
        schedule: learning rate as a factor of `peak_lr`, and steps in all.
        peak_lr: highest learning rate.
        compute: device and precision.
        clip: largest gradient norm; 0 = any.
        accumulate: batches per step; their losses are averaged.
        seed: of the run.
        world: the processes that train together.
    """

    schedule: Schedule
    peak_lr: float
    compute: Compute
    clip: float = 0.0
    accumulate: int = 1
    seed: int = 0
    world: World = ALONE


def train_epoch(
    state: TrainState,
    losses_of: LossNetwork,
    batches: Iterator[Batch],
    length: int,
    *,
    rules: StepRules,
    stop: Callable[[], bool],
    report: Callable[[StepReport], None],
) -> bool:
    """Train from where the epoch stands until its end, the schedule's, or until somebody asks to stop.

    A step whose gradient is not finite changes nothing but the count; the device decides, the host does not wait.

    Args:
        state: weights, optimiser, average and progress, changed in place.
        losses_of: `state.network`, wrapped.
        batches: of this epoch from `state.progress.batch` on, and of those after it.
        length: batches of the epoch.
        rules: how a step is made.
        stop: whether this process was asked to end.
        report: told of every step.

    Returns:
        whether this or another process was asked to stop.

    Raises:
        TrainingError: a batch does not fit into memory.
    """
    state.network.train()
    progress, alone, ending = state.progress, rules.world.size == 1, False
    while not ending and progress.batch < length and progress.step < rules.schedule.steps:
        started = time.monotonic()
        parts = list(islice(batches, min(rules.accumulate, length - progress.batch)))
        used = [part for part in parts if part.sizes or not alone]
        if used:
            lr = rules.peak_lr * rules.schedule.factor(progress.step)
            set_lr(state.optimizer, lr)
            losses, norm = compute_gradients(state, losses_of, used, rules)
            step_unless(state.optimizer, ~torch.isfinite(norm))
            progress.step += 1
            if state.average is not None:
                state.average.update(progress.step)
        progress.batch += len(parts)
        progress.seconds += time.monotonic() - started
        if used:
            report(_report(losses, norm, lr, used, progress.step, rules.world))
        ending = rules.world.any(stop())  # in every step: torchrun waits half a minute, then kills
    return ending


def compute_gradients(
    state: TrainState, losses_of: LossNetwork, parts: list[Batch], rules: StepRules
) -> tuple[dict[str, Tensor], Tensor]:
    """Gradients of the mean loss of one or several batches, clipped.

    Returns:
        this process's share of each loss, and the norm of the gradient before clipping; neither is read.
    """
    state.optimizer.zero_grad(set_to_none=True)
    sums: dict[str, Tensor] = {}
    for number, part in enumerate(parts):
        torch.manual_seed(draw_seed(rules.seed, state.progress, number))
        final = number == len(parts) - 1
        with memory_errors_named(part, state.progress.step + 1), losses_of.reduced(final=final):
            losses = losses_of(part)
            total = torch.stack(list(losses.values())).sum()
            # DDP takes the mean over processes, and each has only its share of the losses
            (total * (rules.world.size / len(parts))).backward()  # type: ignore[no-untyped-call]
        for name, loss in losses.items():
            sums[name] = sums.get(name, 0.0) + loss.detach() / len(parts)
    limit = rules.clip if rules.clip > 0 else float("inf")
    return sums, nn.utils.clip_grad_norm_(state.network.parameters(), limit)


def draw_seed(seed: int, progress: Progress, part: int) -> int:
    """Of what the network draws on one batch: keyed by place, so that nothing random needs to be stored."""
    place = (seed, progress.epoch, progress.batch + part)
    return int(np.random.SeedSequence(place).generate_state(1)[0])


def _report(
    losses: dict[str, Tensor],
    norm: Tensor,
    lr: float,
    parts: list[Batch],
    step: int,
    world: World,
) -> StepReport:
    """What the step did; where there are several processes, summed over them, still on the device."""
    pictures = sum(len(part.sizes) for part in parts)
    shared = world.sum(torch.stack([*losses.values(), norm.new_full((), float(pictures))]))
    return StepReport(
        step=step,
        losses=dict(zip(losses, shared, strict=False)),
        norm=norm,
        pictures=shared[-1],
        lr=lr,
        files=tuple(name for part in parts for name in part.file_names),
    )
