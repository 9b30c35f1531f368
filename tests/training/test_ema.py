"""The moving average of the weights."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import nn

from segcli.training.ema import MovingAverage


def test_it_follows_the_formula() -> None:
    """In float64 by hand: early steps forget the start quickly, later ones keep to the decay."""
    torch.manual_seed(0)
    network = nn.Linear(3, 2)
    network.bias.requires_grad_(False)
    average = MovingAverage(cast(Any, network), 0.9)
    expected, bias = network.weight.detach().double().clone(), network.bias.detach().clone()
    for step in range(1, 200):
        with torch.no_grad():
            network.weight.add_(torch.randn(2, 3))
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * network.weight.detach().double()
    found = cast(Any, average.network)
    assert found.weight.detach().double().numpy() == pytest.approx(expected.numpy(), abs=1e-5)
    assert torch.equal(found.bias, bias)
    assert not any(p.requires_grad for p in found.parameters())


def test_the_trained_network_is_left_alone() -> None:
    """The average is a copy."""
    network = nn.Linear(3, 2)
    before = network.weight.detach().clone()
    average = MovingAverage(cast(Any, network), 0.5)
    average.update(1)
    assert torch.equal(network.weight, before)
    assert cast(Any, average.network).weight.data_ptr() != network.weight.data_ptr()
