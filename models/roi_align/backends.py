"""Which implementation of RoIAlign runs, and why."""

from __future__ import annotations

import importlib.util
import os

import torch

from segcli.models.roi_align.sampling import Mode

BACKENDS = ("auto", "triton", "gather", "torchvision", "reference")

_OLDEST_GPU = (8, 0)
_TRITON_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def choose_backend(
    backend: str,
    device: torch.device | str,
    mode: Mode = "avg",
    dtype: torch.dtype = torch.float32,
) -> str:
    """The backend that runs.

    `auto` is Triton on a CUDA device, the gather on a CPU, torchvision's operator elsewhere; and the reference where
    the maximum is asked for and there is no Triton, which alone has it too.

    Args:
        backend: one of `BACKENDS`.
        device: of the features.
        mode: over the samples of a bin.
        dtype: of the features.

    Raises:
        ValueError: unknown backend, or one that cannot do here what is asked.
    """
    device = torch.device(device)
    if backend not in BACKENDS:
        raise ValueError(f"RoIAlign backend {backend!r}: expected one of {', '.join(BACKENDS)}")
    if mode not in ("avg", "max"):
        raise ValueError(f"RoIAlign mode {mode!r}, expected 'avg' or 'max'")
    if backend == "auto":
        return _best(device, mode, dtype)
    reason = why_not(backend, device, mode, dtype)
    if reason:
        raise ValueError(f"RoIAlign backend {backend} cannot run: {reason}")
    return backend


def why_not(
    backend: str, device: torch.device, mode: Mode = "avg", dtype: torch.dtype = torch.float32
) -> str | None:
    """Why a backend cannot do what is asked; None where it can."""
    if backend == "triton":
        return _why_not_triton(device, dtype)
    if backend != "reference" and mode != "avg":
        return f"it has no mode {mode!r}; use backend 'reference'"
    if backend == "gather" and device.type != "cpu":
        return f"it is for the CPU, found {device.type}"
    return None


def explain(backend: str, device: torch.device) -> str:
    """The backend that runs and the reason, for people: `triton (one launch for all levels)`."""
    chosen = choose_backend(backend, device)
    reason = {
        "triton": "one launch for all levels",
        "gather": "rows of channels, on all cores",
        "torchvision": "its own operator",
        "reference": "the definition, slow",
    }[chosen]
    missing = _why_not_triton(device, torch.float32)
    if backend == "auto" and missing:
        reason += f"; Triton cannot run: {missing}"
    return f"{chosen} ({reason})"


def _best(device: torch.device, mode: Mode, dtype: torch.dtype) -> str:
    if device.type == "cuda" and _why_not_triton(device, dtype) is None:
        return "triton"
    if mode != "avg":
        return "reference"
    return "gather" if device.type == "cpu" else "torchvision"


def _why_not_triton(device: torch.device, dtype: torch.dtype) -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed (there is none for this platform, or: pip install triton)"
    if dtype not in _TRITON_DTYPES:
        return f"features of {dtype}, expected float32, float16 or bfloat16"
    if interpreting():
        return None
    if device.type != "cuda":
        return f"it needs a CUDA device, found {device.type}"
    found = torch.cuda.get_device_capability(device)
    if found < _OLDEST_GPU:
        return f"it needs a GPU of compute capability {_OLDEST_GPU[0]}.{_OLDEST_GPU[1]}, found {found[0]}.{found[1]}"
    return None


def interpreting() -> bool:
    """Triton's kernels run in its interpreter, on the CPU too; for tests, thousands of times slower."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")
