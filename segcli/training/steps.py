"""What steps did, read back from the device: several in one copy, so that the device never waits for the host."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from segcli.training.world import World

# on a GPU; on a CPU every step is read, since nothing is waited for
EVERY = 20


@dataclass(frozen=True, eq=False)
class StepReport:
    """One step as the device knows it.

    Attributes:
        step: counted from 1.
        losses: by name, 0-d, summed over the processes.
        norm: of the gradient, before clipping.
        pictures: in the step, those of all processes.
        lr: learning rate.
        files: pictures of this process.
    """

    step: int
    losses: dict[str, Tensor]
    norm: Tensor
    pictures: Tensor
    lr: float
    files: tuple[str, ...]


@dataclass(frozen=True)
class StepFigures:
    """One step in plain numbers.

    Attributes:
        step: counted from 1.
        losses: by name.
        norm: of the gradient, before clipping.
        lr: learning rate.
        files: pictures of all processes where the step broke, else of this one.
        pictures: of all processes.
    """

    step: int
    losses: dict[str, float]
    norm: float
    lr: float
    files: tuple[str, ...]
    pictures: int

    @property
    def broken(self) -> str | None:
        """Which number is not finite, and what it is: such a step has changed nothing. None for a good one."""
        for name, value in {**self.losses, "the gradient": self.norm}.items():
            if not abs(value) < float("inf"):
                return f"{name} is {value}"
        return None


class StepReader:
    """Collects reports and reads them when it is time to, at the same steps in every process.

    Args:
        device: of the reports.
        world: the processes.
    """

    def __init__(self, device: torch.device, world: World) -> None:
        self.every = 1 if device.type == "cpu" else EVERY
        self.world = world
        self._waiting: list[StepReport] = []

    def take(self, report: StepReport) -> list[StepFigures]:
        """Add one step; the figures of all unread ones where it is time to read, else nothing."""
        self._waiting.append(report)
        return [] if report.step % self.every else self.rest()

    def rest(self) -> list[StepFigures]:
        """The figures of all unread steps; for the end of an epoch, or of the run."""
        reports, self._waiting = self._waiting, []
        if not reports:
            return []
        rows = [torch.stack([*r.losses.values(), r.norm, r.pictures]) for r in reports]
        values = torch.stack(rows).cpu().tolist()
        return [self._figures(r, row) for r, row in zip(reports, values, strict=True)]

    def _figures(self, report: StepReport, row: list[float]) -> StepFigures:
        figures = StepFigures(
            step=report.step,
            losses=dict(zip(report.losses, row, strict=False)),
            norm=row[-2],
            lr=report.lr,
            files=report.files,
            pictures=round(row[-1]),
        )
        if figures.broken is None:
            return figures
        files = tuple(name for part in self.world.collect(report.files) for name in part)
        return StepFigures(**{**vars(figures), "files": files})
