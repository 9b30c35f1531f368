"""The kernels through the public functions, and what a second reader found at their edges."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is only for Linux")

import torch
from torch import Tensor

from segcli.models.roi_align import backward_atomic, backward_kernel, roi_align
from segcli.models.roi_align.align import roi_align_pyramid_shared
from segcli.models.roi_align.sampling import Sampling

SCALES = (1 / 4, 1 / 8)
BOXES = torch.tensor([[0, 3.0, 4.0, 30.0, 28.0], [1, -20.0, -9.0, 120.0, 150.0], [-1, 0, 0, 9, 9]])
OBJECTS = torch.tensor([[1, 5.0, 2.0, 25.0, 19.0]])
REPOSITORY = Path(__file__).resolve().parents[3]


def _maps(device: str, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 5, 20 // s, 24 // s, generator=generator) for s in (1, 2)]
    return [m.to(device, dtype).requires_grad_() for m in maps]


@pytest.mark.parametrize("deterministic", [True, False], ids=["gathered", "atomic"])
def test_box_and_mask_pooling_by_the_public_function(device: str, deterministic: bool) -> None:
    """Values, layout and the one gradient of both, against the reference."""
    results = []
    for backend in ("triton", "reference"):
        maps = _maps(device)
        pooled = roi_align_pyramid_shared(
            maps, [BOXES.to(device), OBJECTS.to(device)], [(2, 3), (4, 4)], SCALES,
            level_rule="torchvision", backend=backend, deterministic=deterministic,
        )  # fmt: skip
        loss = pooled[0].square().sum() + pooled[1].sum()
        results.append((pooled, torch.autograd.grad(loss, maps)))
    (ours, slopes), (theirs, expected) = results
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in ours)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    torch.testing.assert_close(slopes, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("form", [backward_kernel.backward, backward_atomic.backward])
def test_three_poolings_are_the_sum(form: object, device: str) -> None:
    """More than a box and a mask head: each adds its share."""
    assert callable(form)
    shapes, how = [(2, 11, 13, 5)], Sampling((0.25,))
    rois = [BOXES.to(device), OBJECTS.to(device), BOXES[:2].to(device)]
    generator = torch.Generator().manual_seed(1)
    grads = [torch.randn(len(r), 2, 2, 5, generator=generator).to(device) for r in rois]
    (found,) = form(grads, rois, shapes, torch.float32, how)
    singles = [
        form([g], [r], shapes, torch.float32, how)[0] for g, r in zip(grads, rois, strict=True)
    ]
    torch.testing.assert_close(found, singles[0] + singles[1] + singles[2], atol=1e-5, rtol=0)


def test_detectron2s_hand_worked_case(device: str) -> None:
    """On a ramp 0 … 24 the aligned 4 × 4 pooling of (1, 1, 3, 3) reads 4.5, 5.0, 5.5 … (detectron2's own test)."""
    ramp = torch.arange(25, dtype=torch.float32, device=device).reshape(1, 1, 5, 5)
    rois = torch.tensor([[0, 1.0, 1.0, 3.0, 3.0]], device=device)
    found = roi_align(ramp, rois, (4, 4), 1.0, sampling_ratio=0, aligned=True, backend="triton")
    expected = (torch.arange(4)[:, None] * 2.5 + torch.arange(4) * 0.5 + 4.5).to(device)
    torch.testing.assert_close(found[0, 0], expected, atol=1e-6, rtol=0)


def test_bfloat16_stays_under_autocast(device: str) -> None:
    """Features of 16 bits are read as they are, and their gradient has their type."""
    maps = _maps(device, torch.bfloat16)
    with torch.autocast(device, torch.bfloat16):
        pooled = roi_align(maps[0], BOXES.to(device), (2, 2), 0.25, backend="triton")
    assert pooled.dtype == torch.bfloat16
    assert torch.autograd.grad(pooled.sum(), maps[0])[0].dtype == torch.bfloat16


GUARDED = """
import ctypes, mmap, torch
from segcli.models.roi_align import backward_kernel
from segcli.models.roi_align.sampling import Sampling

libc, page, count = ctypes.CDLL(None), mmap.PAGESIZE, {h} * {w}
memory = mmap.mmap(-1, 2 * page)
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
assert libc.mprotect(ctypes.c_void_p(address + page), page, 0) == 0
buffer = (ctypes.c_float * count).from_address(address + page - 4 * count)
grad = torch.frombuffer(buffer, dtype=torch.float32).fill_(1).view(1, {h}, {w}, 1)
rois = torch.tensor([[0, 0.0, 0.0, 13.0, 14.0 * {h}]])
out = backward_kernel.backward([grad], [rois], [(1, 40, 16, 1)], torch.float32, Sampling((1.0,), (), 1))
print(out[0].sum().item())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mprotect is called as on Linux")
@pytest.mark.parametrize(("h", "w"), [(1, 1), (1, 3), (2, 2)])
def test_nothing_is_read_behind_the_gradient(h: int, w: int) -> None:
    """A sample exactly on the last row of a tile touches the next tile with weight 0, for which there are no bins."""
    given = os.environ.get("PYTHONPATH")  # gpu_check.sh puts a folder of links first
    path = os.pathsep.join(filter(None, (given, str(REPOSITORY))))
    run = subprocess.run(
        [sys.executable, "-c", GUARDED.format(h=h, w=w)],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": path},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert run.returncode == 0, (
        f"a page that may not be read lies behind the gradient: {run.stderr}"
    )
    assert float(run.stdout) == pytest.approx(h * w)
