"""Which RoIAlign runs where, and what is said when it cannot."""

from __future__ import annotations

import pytest
import torch

from segcli.models.roi_align import backends as module
from segcli.models.roi_align import choose_backend, explain, roi_align

CPU, CUDA, MPS = (torch.device(kind) for kind in ("cpu", "cuda", "mps"))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU of compute capability 9.0, as far as is asked."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("device", "mode", "dtype", "expected"),
    [
        (CPU, "avg", torch.float32, "gather"),
        (CPU, "avg", torch.bfloat16, "gather"),
        (CPU, "max", torch.float32, "reference"),
        (CUDA, "avg", torch.float32, "triton"),
        (CUDA, "avg", torch.bfloat16, "triton"),
        (CUDA, "max", torch.float16, "triton"),
        (CUDA, "avg", torch.float64, "torchvision"),
        (MPS, "avg", torch.float32, "torchvision"),
        (MPS, "max", torch.float32, "reference"),
    ],
)
def test_auto(device: torch.device, mode: module.Mode, dtype: torch.dtype, expected: str) -> None:
    """Triton on CUDA, the gather on a CPU, torchvision's operator elsewhere."""
    assert choose_backend("auto", device, mode, dtype) == expected


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("backend", "device", "mode", "dtype", "message"),
    [
        ("cuda", CPU, "avg", torch.float32, "expected one of auto, triton, gather, torchvision"),
        (
            "triton",
            CPU,
            "avg",
            torch.float32,
            "triton cannot run: it needs a CUDA device, found cpu",
        ),
        ("triton", CUDA, "avg", torch.float64, "features of torch.float64"),
        ("gather", CUDA, "avg", torch.float32, "it is for the CPU, found cuda"),
        ("gather", CPU, "max", torch.float32, "no mode 'max'"),
        ("torchvision", CPU, "max", torch.float32, "no mode 'max'"),
    ],
)
def test_a_backend_that_cannot_run_is_an_error(
    backend: str, device: torch.device, mode: module.Mode, dtype: torch.dtype, message: str
) -> None:
    """Never another one in its place."""
    with pytest.raises(ValueError, match=message):
        choose_backend(backend, device, mode, dtype)


def test_an_old_gpu_and_no_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` takes torchvision's operator then, and says why."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 0))
    assert choose_backend("auto", CUDA) == "torchvision"
    assert "compute capability 8.0, found 7.0" in explain("auto", CUDA)
    with pytest.raises(ValueError, match="compute capability"):
        choose_backend("triton", CUDA)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda _: None)
    assert choose_backend("auto", CUDA) == "torchvision"
    with pytest.raises(ValueError, match="triton is not installed"):
        choose_backend("triton", CUDA)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("backend", "device", "said"),
    [
        ("auto", CUDA, "triton (one launch for all levels)"),
        ("auto", CPU, "gather (rows of channels, on all cores; Triton cannot run: it needs a CUDA"),
        ("gather", CPU, "gather (rows of channels, on all cores)"),
        ("torchvision", CPU, "torchvision (its own operator)"),
        ("reference", CPU, "reference (the definition, slow)"),
    ],
)
def test_what_is_said(backend: str, device: torch.device, said: str) -> None:
    """The name, what it is, and why it is not Triton where nobody chose."""
    assert explain(backend, device).startswith(said)


def test_asking_for_triton_on_a_cpu_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the public function too."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match="needs a CUDA device"):
        roi_align(torch.zeros(1, 1, 4, 4), torch.zeros(1, 5), (2, 2), 0.25, backend="triton")
