"""What training changes: weights, their moving average, the optimiser, and how far it has come."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from segcli.models import MaskRCNN
from segcli.training.ema import MovingAverage
from segcli.training.progress import Progress


@dataclass(frozen=True, eq=False)
class TrainState:
    """All that a checkpoint stores. Nothing random is in it: every draw is keyed by the seed and the place.

    Attributes:
        network: that is trained.
        optimizer: of its trained parameters.
        average: of its weights, or None.
        progress: changed in place.
    """

    network: MaskRCNN
    optimizer: torch.optim.Optimizer
    average: MovingAverage | None = None
    progress: Progress = field(default_factory=Progress)

    @property
    def result(self) -> MaskRCNN:
        """The network that is evaluated and saved: the average where there is one."""
        return self.network if self.average is None else self.average.network

    def tensors(self) -> dict[str, Any]:
        """State dicts, by name."""
        states = {"model": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}
        if self.average is not None:
            states["average"] = self.average.network.state_dict()
        return states

    def restore(self, tensors: dict[str, Any], progress: Progress) -> None:
        """Take over what a checkpoint holds, in place."""
        self.network.load_state_dict(tensors["model"])
        self.optimizer.load_state_dict(tensors["optimizer"])
        if self.average is not None:
            self.average.network.load_state_dict(tensors["average"])
        vars(self.progress).update(vars(progress))
