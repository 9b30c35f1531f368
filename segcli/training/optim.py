"""Optimiser and learning-rate schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from segcli.errors import UsageError


@dataclass(frozen=True)
class Schedule:
    """Learning rate as a factor of the peak.

    Attributes:
        kind: `cosine` (to 1 % of the peak) or `step` (× 0.1 at 8/12 and at 11/12).
        warmup: steps of linear warm-up.
        steps: in all.
    """

    kind: str
    warmup: int
    steps: int

    def factor(self, step: int) -> float:
        """The factor for step `step`, counted from 0."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        done = (step - self.warmup) / max(self.steps - self.warmup, 1)
        if self.kind == "cosine":
            return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
        place = step / max(self.steps, 1)
        return 1.0 if place < 8 / 12 else 0.1 if place < 11 / 12 else 0.01


def build_optimizer(
    network: nn.Module, name: str, *, lr: float, weight_decay: float, momentum: float
) -> torch.optim.Optimizer:
    """SGD with momentum, or AdamW; biases and norms are not decayed.

    Raises:
        UsageError: another name.
    """
    trained = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if name == "sgd":
        sgd = torch.optim.SGD(groups, lr=lr, momentum=momentum, fused=_can_fuse(trained))
        if (
            momentum
        ):  # zero, as its first step would make it; but that step may be one that is skipped
            for parameter in trained:
                sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return sgd
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, fused=_can_fuse(trained))
    raise UsageError(f"--optimizer {name}: expected sgd or adamw")


def _can_fuse(parameters: list[nn.Parameter]) -> bool:
    """One kernel for all parameters instead of five passes over each; not on every device."""
    return all(p.device.type in ("cpu", "cuda") for p in parameters)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def step_unless(optimizer: torch.optim.Optimizer, broken: Tensor) -> None:
    """One step, unless `broken` (bool, 0-d) is true: then weights and optimiser stay as they are.

    A fused kernel asks the device itself (`found_inf`, as for `torch.amp.GradScaler`), so the host does not wait.
    """
    if all(group["fused"] for group in optimizer.param_groups):
        optimizer.found_inf = broken.float()  # type: ignore[attr-defined]
        optimizer.step()
    elif not bool(broken):
        optimizer.step()
