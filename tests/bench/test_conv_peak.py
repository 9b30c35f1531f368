"""The convolution that everything is measured against."""

from __future__ import annotations

import pytest
import torch

from segcli.bench import conv_peak as module
from segcli.bench.conv_peak import conv_peak
from segcli.bench.timing import Prepare, Run, State

CPU = torch.device("cpu")


class _Told:
    """Says that a call takes so many milliseconds: by type, and less for small maps."""

    states: tuple[State, ...] = ("call",)
    budget_ms = 0.0

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def time(self, prepare: Prepare, run: Run, state: State) -> float:
        out = run(prepare())
        self.seen.append(out)
        return 10.0 if out.dtype == torch.float32 else 2.5


@pytest.mark.parametrize("able", [True, False], ids=["with bf16", "emulated"])
def test_arithmetic(able: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Operations are two per multiplication; both types are measured, an emulated one is said to be."""
    monkeypatch.setattr(module, "cpu_has_bf16", lambda: able)
    clock = _Told()
    found = conv_peak(CPU, clock, quick=True)

    gflop = 2 * 256 * 256 * 9 * 25 * 34 / 1e9
    assert found["fp32"].gflop_per_s == pytest.approx(gflop / 0.01)
    assert found["bf16"].gflop_per_s == pytest.approx(gflop / 0.0025)
    assert (found["fp32"].emulated, found["bf16"].emulated) == (False, not able)
    assert all(out.shape == (1, 256, 25, 34) for out in clock.seen)
    assert all(out.is_contiguous(memory_format=torch.channels_last) for out in clock.seen)


def test_the_fastest_shape_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of equal times the larger map is the faster one."""
    monkeypatch.setattr(module, "_MAPS", ((4, 4), (8, 8), (6, 6)))
    found = conv_peak(CPU, _Told())

    assert {peak.shape for peak in found.values()} == {
        "3 × 3, 256 → 256 channels, 8 × 8, channels-last"
    }
