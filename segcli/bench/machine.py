"""What the figures were measured on, without the machine's name."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from segcli.bench.timing import Clock
from segcli.models.roi_align.backends import interpreting
from segcli.version import __version__

_PACKAGES = ("torch", "torchvision", "triton")


def describe_machine(device: torch.device, also: Sequence[str] = ()) -> dict[str, Any]:
    """Processor, GPU, threads and versions, those of the packages in `also` too, for the table's head and the JSON."""
    facts: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "interpreted": interpreting(),
        "versions": {"segcli": __version__, "python": platform.python_version(), **_versions(also)},
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts["gpu"] = {
            "name": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory_bytes": properties.total_memory,
            "l2_bytes": properties.L2_cache_size,
            "cuda": torch.version.cuda,
        }
    return facts


def copy_speed(device: torch.device, clock: Clock, size: int) -> float:
    """Bytes read and written per second by a copy of `size` bytes on the device; median of ten."""
    source = torch.zeros(size // 4, dtype=torch.float32, device=device)
    target = torch.ones_like(source)
    state = clock.states[0]
    times = [clock.time(lambda: None, lambda _: target.copy_(source), state) for _ in range(12)][2:]
    return 2 * size / (statistics.median(times) / 1e3)


def _versions(also: Sequence[str]) -> dict[str, str]:
    found = {}
    for name in (*_PACKAGES, *also):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
