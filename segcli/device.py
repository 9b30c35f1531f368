"""Where the network runs and in which arithmetic; resolved once and printed."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch

from segcli.errors import UsageError
from segcli.models.roi_align import choose_backend


@dataclass(frozen=True)
class Compute:
    """A resolved device and precision.

    Attributes:
        device: of weights and activations.
        precision: `fp32`, `bf16` or `int8`.
    """

    device: torch.device
    precision: str

    @property
    def dtype(self) -> torch.dtype:
        """Of features and weights at inference."""
        return dtype_of(self.precision)

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """bf16 for convolutions and matrix products where asked for; RoIs, boxes and NMS stay fp32."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def describe(self) -> str:
        """`cpu (2 threads), fp32`, for the line that is printed at the start."""
        where = str(self.device)
        if self.device.type == "cpu":
            where += f" ({torch.get_num_threads()} threads)"
        elif self.device.type == "cuda":
            where += f" ({torch.cuda.get_device_name(self.device)})"
        return f"{where}, {self.precision}"


def resolve(device: str, precision: str) -> Compute:
    """Turn `--device` and `--precision` into what runs.

    Device `auto` takes CUDA, then MPS, then the CPU. Precision `auto` is bf16 where the device computes in it by
    itself; else fp32. In training weights and optimiser stay fp32. What is called fp32 is that on a GPU too: TF32,
    which cuDNN takes by itself and whose products have 10 bits, is turned off for the process.

    Args:
        device: as given by the user.
        precision: as given by the user.

    Raises:
        UsageError: the device is not there, or cannot do what is asked.
    """
    chosen = _pick() if device == "auto" else _parse(device)
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            f"--device {device}: no CUDA device is usable here (`segcli doctor` says more)"
        )
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"--device {device}: only {torch.cuda.device_count()} CUDA devices are here"
        )
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError(
            f"--device {device}: no MPS device is usable here (`segcli doctor` says more)"
        )
    if chosen.type == "mps" and precision == "bf16":
        raise UsageError("--precision bf16 is not supported on mps; use fp32")
    if precision == "auto":
        precision = "bf16" if _has_bf16(chosen) else "fp32"
    if chosen.type == "cuda":  # for fp32, and a training in bf16 measures in fp32
        torch.backends.cudnn.allow_tf32 = False
    return Compute(chosen, precision)


def dtype_of(precision: str) -> torch.dtype:
    """Type of features, and of weights that are not in 8 bits, at inference."""
    if precision == "int8":  # of the trunk alone
        return torch.bfloat16 if cpu_has_bf16() else torch.float32
    return torch.float32 if precision == "fp32" else torch.bfloat16


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bf16 in hardware (AVX512-BF16 or AMX); emulated it is slower than fp32."""
    able: dict[str, object] = getattr(
        torch.cpu, "get_capabilities", dict
    )()  # not in every torch that is supported
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and cpu_has_bf16()


def roi_align_on(device: torch.device, backend: str) -> str:
    """Turn `--roi-align` into the backend that runs on a device.

    Raises:
        UsageError: it cannot run there.
    """
    try:
        return choose_backend(backend, device)
    except ValueError as error:
        raise UsageError(f"--roi-align {backend}: {error}; use --roi-align auto") from error


def _pick() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda", 0)
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def _parse(device: str) -> torch.device:
    kind, _, index = device.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not (kind == "cuda" and index.isdigit())):
        raise UsageError(f"--device {device}: expected auto, cpu, cuda, cuda:N or mps")
    return torch.device(kind, int(index) if index else 0) if kind == "cuda" else torch.device(kind)
