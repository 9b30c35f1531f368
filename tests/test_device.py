"""`--device` and `--precision` become what runs, or an error that says what is here."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from segcli.device import Compute, resolve
from segcli.errors import UsageError


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pretends how many CUDA devices there are, and whether there is MPS."""

    def pretend(cuda: int, mps: bool, capability: tuple[int, int] = (9, 0)) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Made-up GPU")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)

    return pretend


@pytest.mark.parametrize(
    ("device", "precision", "cuda", "mps", "expected"),
    [
        pytest.param("auto", "auto", 0, False, ("cpu", "fp32"), id="auto, bare machine"),
        pytest.param("auto", "auto", 2, True, ("cuda:0", "bf16"), id="auto, CUDA first"),
        pytest.param("auto", "auto", 0, True, ("mps", "fp32"), id="auto, then MPS"),
        pytest.param("cpu", "auto", 2, True, ("cpu", "fp32"), id="cpu"),
        pytest.param("cpu", "bf16", 0, False, ("cpu", "bf16"), id="cpu, bf16"),
        pytest.param("cuda", "fp32", 1, False, ("cuda:0", "fp32"), id="cuda"),
        pytest.param("cuda:1", "bf16", 2, False, ("cuda:1", "bf16"), id="cuda:1"),
        pytest.param("mps", "fp32", 0, True, ("mps", "fp32"), id="mps"),
    ],
)
def test_resolve(
    device: str,
    precision: str,
    cuda: int,
    mps: bool,
    expected: tuple[str, str],
    machine: Callable[..., None],
) -> None:
    """What is asked for, or the best that is here; a processor without bf16 computes in fp32."""
    assert callable(machine)
    machine(cuda, mps)
    found = resolve(device, precision)

    assert (str(found.device), found.precision) == expected


@pytest.mark.parametrize(
    ("device", "precision", "cuda", "mps", "message"),
    [
        pytest.param("", "auto", 0, False, "expected auto, cpu", id="empty"),
        pytest.param("gpu", "auto", 1, False, "expected auto, cpu", id="unknown"),
        pytest.param("cuda:x", "auto", 1, False, "expected auto, cpu", id="no number"),
        pytest.param("cuda:-1", "auto", 1, False, "expected auto, cpu", id="negative"),
        pytest.param("cpu:0", "auto", 1, False, "expected auto, cpu", id="cpu with a number"),
        pytest.param("mps:0", "auto", 0, True, "expected auto, cpu", id="mps with a number"),
        pytest.param("cuda", "auto", 0, False, "no CUDA device", id="no CUDA"),
        pytest.param("cuda:2", "auto", 2, False, "only 2 CUDA devices", id="one too far"),
        pytest.param("mps", "auto", 0, False, "no MPS device", id="no MPS"),
        pytest.param("mps", "bf16", 0, True, "bf16 is not supported on mps", id="bf16 on MPS"),
    ],
)
def test_refused(
    device: str, precision: str, cuda: int, mps: bool, message: str, machine: Callable[..., None]
) -> None:
    """What is not here is a usage error, never another device."""
    assert callable(machine)
    machine(cuda, mps)
    with pytest.raises(UsageError, match=message):
        resolve(device, precision)


@pytest.mark.parametrize(
    ("device", "text"),
    [("cpu", "threads), fp32"), ("cuda:0", "cuda:0 (Made-up GPU), fp32"), ("mps", "mps, fp32")],
)
def test_describe(device: str, text: str, machine: Callable[..., None]) -> None:
    """The line at the start names device and precision."""
    assert callable(machine)
    machine(1, True)

    assert text in Compute(torch.device(device), "fp32").describe()


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])  # fmt: skip
def test_autocast(precision: str, dtype: torch.dtype) -> None:
    """Matrix products run in the precision that was resolved."""
    with Compute(torch.device("cpu"), precision).autocast():
        product = torch.ones(2, 2) @ torch.ones(2, 2)

    assert product.dtype == dtype


@pytest.mark.parametrize(
    ("able", "precision"),
    [
        pytest.param({"avx512_bf16": True}, "bf16", id="bf16 in hardware"),
        pytest.param({"amx_bf16": True}, "bf16", id="AMX"),
        pytest.param({"avx512_bf16": False}, "fp32", id="none"),
    ],
)
def test_what_auto_precision_means_on_a_cpu(
    able: dict[str, bool], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bf16 where the processor has it."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
    assert resolve("cpu", "auto").precision == precision
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert resolve("cpu", "auto").precision == "fp32"


@pytest.mark.parametrize(("capability", "precision"), [((8, 0), "bf16"), ((7, 5), "fp32")])
def test_what_auto_precision_means_on_a_gpu(
    capability: tuple[int, int], precision: str, machine: Callable[..., None]
) -> None:
    """bf16 from Ampere on; older ones emulate it."""
    machine(1, False, capability)
    assert resolve("cuda", "auto").precision == precision


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_fp32_on_a_gpu_is_not_tf32(
    precision: str, machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """CuDNN would take it by itself; a training in bf16 validates in fp32."""
    machine(1, False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    resolve("cuda", precision)
    assert torch.backends.cudnn.allow_tf32 is False
