"""Schedules and optimisers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from segcli.errors import UsageError
from segcli.training.optim import Schedule, build_optimizer, set_lr, step_unless


@pytest.mark.parametrize(
    ("schedule", "step", "factor"),
    [
        pytest.param(Schedule("cosine", 10, 110), 0, 0.1, id="warm-up begins above zero"),
        pytest.param(Schedule("cosine", 10, 110), 9, 1.0, id="warm-up ends at the peak"),
        pytest.param(Schedule("cosine", 10, 110), 60, 0.505, id="half-way"),
        pytest.param(Schedule("cosine", 10, 110), 110, 0.01, id="the end"),
        pytest.param(Schedule("cosine", 0, 1), 0, 1.0, id="a single step"),
        pytest.param(Schedule("step", 0, 120), 79, 1.0, id="before the first drop"),
        pytest.param(Schedule("step", 0, 120), 80, 0.1, id="first drop at 8/12"),
        pytest.param(Schedule("step", 0, 120), 110, 0.01, id="second drop at 11/12"),
        pytest.param(Schedule("step", 500, 120), 60, 0.122, id="warm-up longer than the run"),
    ],
)
def test_learning_rate_factors(schedule: Schedule, step: int, factor: float) -> None:
    """Warm-up, then cosine or two drops."""
    assert schedule.factor(step) == pytest.approx(factor)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_norms_and_biases_are_not_decayed(name: str) -> None:
    """And frozen parameters are not optimised at all."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(2, 2))
    network[2].weight.requires_grad_(False)
    optimizer = build_optimizer(network, name, lr=0.1, weight_decay=0.5, momentum=0.9)
    decayed, plain = optimizer.param_groups
    assert [tuple(p.shape) for p in decayed["params"]] == [(4, 3, 3, 3)]
    assert len(plain["params"]) == 4
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.5, 0.0)
    set_lr(optimizer, 0.25)
    assert [g["lr"] for g in optimizer.param_groups] == [0.25, 0.25]


def test_unknown_optimizer() -> None:
    """Names the known ones."""
    with pytest.raises(UsageError, match="expected sgd or adamw"):
        build_optimizer(nn.Linear(1, 1), "lion", lr=1, weight_decay=0, momentum=0)


def test_fused_adamw_equals_the_plain_one() -> None:
    """One kernel for all parameters changes nothing but the time."""
    torch.manual_seed(0)
    results = []
    for fused in (True, False):
        layer = nn.Linear(3, 3)
        with torch.no_grad():
            for p in layer.parameters():
                p.copy_(torch.arange(p.numel(), dtype=torch.float32).reshape(p.shape))
        optimizer = build_optimizer(layer, "adamw", lr=0.1, weight_decay=0.05, momentum=0)
        if not fused:
            optimizer = torch.optim.AdamW(
                [{"params": [layer.weight], "weight_decay": 0.05}, {"params": [layer.bias], "weight_decay": 0.0}],
                lr=0.1, foreach=False,
            )  # fmt: skip
        for _ in range(3):
            optimizer.zero_grad()
            layer(torch.ones(2, 3)).square().sum().backward()
            optimizer.step()
        results.append(layer.weight.detach().clone())
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_broken_step_leaves_weights_and_optimiser_alone(name: str, fused: bool) -> None:
    """Also the very first; afterwards it goes on as if the broken one had never been."""
    results = []
    for broken_first in (True, False):
        torch.manual_seed(0)
        layer = nn.Linear(3, 3)
        optimizer = build_optimizer(layer, name, lr=0.1, weight_decay=0.05, momentum=0.9)
        for group in optimizer.param_groups:
            group["fused"] = fused
        for broken in [True, False, True, False] if broken_first else [False, False]:
            optimizer.zero_grad()
            layer(torch.ones(2, 3)).square().sum().backward()
            if broken:
                layer.weight.grad.fill_(float("nan"))  # type: ignore[union-attr]
            before = layer.weight.detach().clone()
            step_unless(optimizer, torch.tensor(broken))
            assert torch.equal(layer.weight, before) is broken
        results.append(layer.weight.detach().clone())
    assert torch.equal(results[0], results[1])
