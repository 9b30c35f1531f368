"""Exponential moving average of the weights: smoother than the last ones, and often better."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor

from segcli.models import MaskRCNN


class MovingAverage:
    """A second network whose weights follow the trained ones (Polyak & Juditsky 1992).

    After step t an average is decay · average + (1 − decay) · weight, with decay growing from 2/11 as
    (1 + t) / (10 + t) up to what was asked for, so that the random weights of the start are forgotten soon
    (tf.train.ExponentialMovingAverage, `num_updates`).

    Args:
        network: that is trained; copied.
        decay: at the end, below 1, e.g. .999.
    """

    def __init__(self, network: MaskRCNN, decay: float) -> None:
        self.network = deepcopy(network).requires_grad_(False)
        self.decay = decay
        self._pairs = _floating(self.network), _floating(network)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after optimiser step `step`, counted from 1; no copy to the host."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages, weights = self._pairs
        torch._foreach_lerp_(averages, weights, 1.0 - decay)


def _floating(network: MaskRCNN) -> list[Tensor]:
    """The trained tensors; what is frozen, and buffers, never change."""
    return [p.data for p in network.parameters()]
