"""Settings that nobody gave."""

from __future__ import annotations

from dataclasses import replace

import pytest

from segcli.categories import Categories
from segcli.config import TrainConfig
from segcli.errors import UsageError
from segcli.models.training.options import LossConfig
from segcli.training.recipe import (
    describe_lr,
    describe_step,
    losses_of,
    resolve_recipe,
    steps_of,
    warmup_of,
)
from segcli.training.start import frozen_stages
from segcli.zoo import new_model

NANO = new_model("mask-rcnn-nano", Categories.from_names(["cell"]), seed=0)
R50 = new_model("mask-rcnn-r50-fpn", Categories.from_names(["cell"]), seed=0)


@pytest.mark.parametrize(
    ("model", "settings", "processes", "lr", "shown"),
    [
        pytest.param(NANO, {}, 1, 0.001, "0.001", id="the recipe's own"),
        pytest.param(NANO, {"batch_size": 2}, 1, 0.0005, "0.0005 (0.001 × √(2/8))", id="adamw"),
        pytest.param(R50, {}, 8, 0.02, "0.02 (0.0025 × 16/2)", id="8 processes"),
        pytest.param(R50, {"accumulate": 4}, 2, 0.02, "0.02 (0.0025 × 16/2)", id="accumulated"),
        pytest.param(R50, {"lr": 0.5}, 8, 0.5, "0.5", id="given"),
    ],
)
def test_the_learning_rate_grows_with_the_pictures_of_a_step(
    model: object, settings: dict[str, object], processes: int, lr: float, shown: str
) -> None:
    """And how is printed."""
    assert model in (NANO, R50)
    given = TrainConfig(**settings)  # type: ignore[arg-type]
    config = resolve_recipe(given, NANO if model is NANO else R50, processes=processes)
    assert config.lr == pytest.approx(lr)
    assert describe_lr(config, given.lr, NANO if model is NANO else R50, processes) == shown


def test_the_pictures_of_a_step() -> None:
    """With processes and batches where there are several."""
    config = TrainConfig(batch_size=4)
    assert describe_step(config, 1) == "4"
    assert describe_step(replace(config, accumulate=2), 1) == "8 (4 × 2 batches)"
    assert describe_step(config, 2) == "8 (2 processes × 4)"


@pytest.mark.parametrize(
    ("settings", "batches", "steps"),
    [
        ({}, 7, 84),
        ({"epochs": 2}, 7, 14),
        ({"epochs": 2, "accumulate": 2}, 7, 8),
        ({"steps": 5, "epochs": 2}, 7, 5),
    ],
)
def test_steps(settings: dict[str, int], batches: int, steps: int) -> None:
    """The last step of an epoch takes the batches that are left."""
    assert steps_of(TrainConfig(**settings), batches) == steps  # type: ignore[arg-type]


def test_short_runs_warm_up_for_a_third_at_most() -> None:
    """So that the learning rate of a stranger's first run reaches its peak and falls again."""
    assert warmup_of(TrainConfig(warmup=1), 1000) == 1
    assert warmup_of(TrainConfig(warmup=100), 36) == 12


def test_box_losses() -> None:
    """Names of the command line; others are refused."""
    assert losses_of(TrainConfig()) == LossConfig()
    assert losses_of(TrainConfig(box_loss="l1")).box_smooth_l1_beta == 0
    assert losses_of(TrainConfig(box_loss="giou")).box_kind == "giou"
    with pytest.raises(UsageError, match="--box-loss l3: expected smooth-l1"):
        losses_of(TrainConfig(box_loss="l3"))


def test_frozen_stages() -> None:
    """Random weights (they carry their seed) are trained whole, whatever their norm."""
    learned = replace(R50, info={})
    assert [frozen_stages(None, m) for m in (NANO, R50, learned)] == ["0", "0", "2"]
    assert frozen_stages("backbone", NANO) == "backbone"
