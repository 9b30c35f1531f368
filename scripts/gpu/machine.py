"""What the machine is, and the two rates that all other figures are shares of."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch

import segcli.models
from gpu.findings import Findings, expect, median_ms


def run(findings: Findings, out: Path) -> None:
    """Name, driver, versions; a device-to-device copy; a bf16 matrix product on random numbers."""
    del out
    print(f"segcli.models is {segcli.models.__file__}", flush=True)
    with findings.check("the packages are there, at versions that are supported"):
        packages = (
            "torch", "torchvision", "triton", "numpy", "click", "rich", "tqdm", "safetensors", "tomli_w", "pytest",
        )  # fmt: skip
        found = {name: version(name) for name in packages}
        expect(
            _at_least(found["torch"], (2, 11)), f"torch {found['torch']}, expected 2.11 or later"
        )
        expect(
            _at_least(found["triton"], (3, 6)), f"triton {found['triton']}, expected 3.6 or later"
        )
        findings.figure("versions", found | {"python": platform.python_version()})
    findings.cuda_check("a GPU that the kernels are made for", lambda: _device(findings))
    findings.cuda_check("copy bandwidth", lambda: _copy(findings))
    findings.cuda_check("matrix rate", lambda: _matrix(findings))


def _at_least(found: str, expected: tuple[int, int]) -> bool:
    major, minor = found.split(".")[:2]
    return (int(major), int(minor)) >= expected


def _device(findings: Findings) -> None:
    properties = torch.cuda.get_device_properties(0)
    driver = subprocess.run(
        ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    findings.figure("device", properties.name)
    findings.figure("driver", driver.stdout.strip() or "nvidia-smi says nothing")
    findings.figure("cuda", torch.version.cuda)
    findings.figure("memory_bytes", properties.total_memory)
    findings.figure("multiprocessors", properties.multi_processor_count)
    expect(properties.major >= 8, f"compute capability {properties.major}.{properties.minor}")


def _copy(findings: Findings) -> None:
    """Bytes read plus bytes written per second, buffers far beyond the L2 cache."""
    source = torch.randint(-128, 127, (4 * 2**30,), dtype=torch.int8, device="cuda")
    target = torch.empty_like(source)
    milliseconds = median_ms(lambda: target.copy_(source), repeats=10, cold=False)
    rate = 2 * source.numel() / milliseconds * 1e3
    findings.figure("copy_bytes_per_second", round(rate))
    expect(torch.equal(source[-1000:], target[-1000:]), "the copy differs")


def _matrix(findings: Findings) -> None:
    side = 8192
    a, b = (torch.randn(side, side, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    milliseconds = median_ms(lambda: a @ b, repeats=10, cold=False)
    findings.figure("bf16_matrix_flops", round(2 * side**3 / milliseconds * 1e3))
