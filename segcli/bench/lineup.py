"""Contestants that have proved they can run here, and how far each is from the truth."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from segcli.bench.check import Difference, Truth, compare, find_truth
from segcli.bench.contestants import Contestant, Entry, Part, enter, entries
from segcli.bench.figures import Report
from segcli.bench.inputs import Inputs
from segcli.console import warn


@dataclass(frozen=True)
class Checked:
    """A contestant that has run once.

    Attributes:
        contestant: the one.
        difference: from the truth.
        peak_bytes: most GPU memory that forward and backward took beside features; None on a CPU.
    """

    contestant: Contestant
    difference: Difference
    peak_bytes: int | None

    @property
    def entry(self) -> Entry:
        """Who it is."""
        return self.contestant.entry

    def shown(self, part: Part) -> tuple[float, float]:
        """Difference and limit for a row: the output's, or the gradient's where there is one."""
        d = self.difference
        if part == "forward":
            return d.forward, d.forward_limit
        return d.backward, d.backward_limit

    def ok(self, part: Part) -> bool | None:
        """Whether all that this part runs is right; None for a peer. NaN is not right."""
        if not self.entry.ours:
            return None
        d = self.difference
        forward, backward = d.forward <= d.forward_limit, d.backward <= d.backward_limit
        return {"forward": forward, "backward": backward, "forward+backward": forward and backward}[
            part
        ]


def line_up(report: Report, name: str, inputs: Inputs, device: torch.device) -> list[Checked]:
    """Everyone who can run a workload, compared with the truth. Peers who cannot are noted in the report."""
    truths: dict[str, Truth] = {}
    checked = []
    for entry in entries(device, report.backend, len(inputs.strides)):
        if entry.dtype not in truths:
            truths[entry.dtype] = find_truth(inputs, entry.dtype).to(device)
        try:
            checked.append(_check(entry, inputs, device, report.backend, truths[entry.dtype]))
        except RuntimeError as error:
            if entry.ours:
                raise
            # no compiler for the deterministic path, or not enough memory
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            report.absent[f"{name}: {entry.name}"] = reason
            warn(f"{name}: {entry.name} cannot run and is left out: {reason}")
    return checked


def _check(
    entry: Entry, inputs: Inputs, device: torch.device, backend: str, truth: Truth
) -> Checked:
    contestant = enter(entry, inputs, device, backend)
    on_gpu = device.type == "cuda"
    before = 0
    if on_gpu:
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
    outputs = contestant.graph()
    gradients = contestant.backward(outputs)
    peak = torch.cuda.max_memory_allocated(device) - before if on_gpu else None
    return Checked(contestant, compare(contestant, outputs, gradients, truth), peak)
