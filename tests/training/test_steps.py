"""Figures of steps, read from the device now and then."""

from __future__ import annotations

import pytest
import torch

from segcli.training.steps import EVERY, StepReader, StepReport
from segcli.training.world import ALONE


def _report(step: int, loss: float = 1.0, norm: float = 2.0) -> StepReport:
    return StepReport(
        step=step,
        losses={"loss_mask": torch.tensor(loss), "loss_classifier": torch.tensor(0.5)},
        norm=torch.tensor(norm),
        pictures=torch.tensor(4.0),
        lr=0.1,
        files=("a.png", "b.png"),
    )


def test_on_a_cpu_every_step_is_read() -> None:
    """Nothing is waited for there."""
    reader = StepReader(torch.device("cpu"), ALONE)
    (figures,) = reader.take(_report(7))
    assert figures.losses == {"loss_mask": 1.0, "loss_classifier": 0.5}
    assert (figures.step, figures.norm, figures.pictures) == (7, 2.0, 4)
    assert figures.broken is None


def test_on_a_gpu_steps_are_read_together() -> None:
    """Every so many steps, and what is left at the end of an epoch, where there may be nothing."""
    reader = StepReader(torch.device("cuda"), ALONE)
    taken = [len(reader.take(_report(step))) for step in range(3, EVERY + 3)]
    assert taken == [0] * (EVERY - 3) + [EVERY - 2] + [0, 0]
    assert [f.step for f in reader.rest()] == [EVERY + 1, EVERY + 2]
    assert reader.rest() == []


@pytest.mark.parametrize(
    ("loss", "norm", "broken"),
    [
        pytest.param(float("nan"), float("nan"), "loss_mask is nan", id="loss"),
        pytest.param(float("inf"), 1.0, "loss_mask is inf", id="infinite loss"),
        pytest.param(1.0, float("nan"), "the gradient is nan", id="gradient of a finite loss"),
        pytest.param(1.0, float("inf"), "the gradient is inf", id="infinite gradient"),
        pytest.param(1e30, 1e30, None, id="large is not broken"),
    ],
)
def test_what_broke_is_named(loss: float, norm: float, broken: str | None) -> None:
    """The first loss that is not finite, else the gradient."""
    (figures,) = StepReader(torch.device("cpu"), ALONE).take(_report(1, loss, norm))
    assert figures.broken == broken
    assert figures.files == ("a.png", "b.png")
