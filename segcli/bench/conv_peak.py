"""The fastest convolution that this machine shows: what a network's speed is measured against."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch

from segcli.bench.timing import Clock
from segcli.device import cpu_has_bf16

_CHANNELS = 256
_MAPS = ((200, 272), (100, 136))  # P2 and P3 of an 800 × 1088 picture
_QUICK_MAPS = ((25, 34),)
_REPEATS = 7
_BUDGET_S = 2.0
_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class ConvPeak:
    """What the best of several convolutions reached in one type.

    Attributes:
        gflop_per_s: 10⁹ floating-point operations per second; a multiplication and its addition are two.
        shape: of the best one.
        emulated: the processor has no instructions for the type.
    """

    gflop_per_s: float
    shape: str
    emulated: bool


def conv_peak(device: torch.device, clock: Clock, *, quick: bool = False) -> dict[str, ConvPeak]:
    """Measure 3 × 3 convolutions, 256 → 256 channels, channels-last, in each type; the fastest shape counts.

    bf16 is measured also where the processor has to emulate it: that it is slow there is a result.

    Args:
        device: where they run.
        clock: of the device.
        quick: one tiny map, which says nothing of speed.
    """
    found = {}
    for name, dtype in _TYPES.items():
        reached = {
            m: _gflop_per_s(m, dtype, device, clock) for m in (_QUICK_MAPS if quick else _MAPS)
        }
        best = max(reached, key=lambda m: reached[m])
        found[name] = ConvPeak(
            gflop_per_s=reached[best],
            shape=f"3 × 3, {_CHANNELS} → {_CHANNELS} channels, {best[0]} × {best[1]}, channels-last",
            emulated=name == "bf16" and device.type == "cpu" and not cpu_has_bf16(),
        )
    return found


def _gflop_per_s(
    size: tuple[int, int], dtype: torch.dtype, device: torch.device, clock: Clock
) -> float:
    """Median over the repeats, of which as many are made as fit into two seconds, from 1 to 7."""
    image = torch.randn(1, _CHANNELS, *size, device=device, dtype=dtype)
    layer = torch.nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1, device=device, dtype=dtype)
    image, layer = (
        image.to(memory_format=torch.channels_last),
        layer.to(memory_format=torch.channels_last),
    )
    with torch.inference_mode():
        layer(image)
        times: list[float] = []
        end = time.monotonic() + _BUDGET_S
        while not times or (len(times) < _REPEATS and time.monotonic() < end):
            times.append(clock.time(lambda: None, lambda _: layer(image), clock.states[0]))
    gflop = 2 * 9 * _CHANNELS**2 * size[0] * size[1] / 1e9
    return gflop / (statistics.median(times) / 1e3)
