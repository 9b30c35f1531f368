"""What the interpreter can not show: large offsets, equal bits, graphs, compilation, autocast, no waiting."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from gpu import scenes
from gpu.findings import Findings, expect
from segcli.models.roi_align import backward_atomic, backward_kernel, forward_kernel
from segcli.models.roi_align.align import roi_align_pyramid_shared
from segcli.models.roi_align.sampling import Sampling

RUNS = 10


def run(findings: Findings, out: Path) -> None:
    """Each on its own; those that need CUDA itself are named in a rehearsal."""
    del out
    with findings.check(f"{RUNS} backward runs have the same bits"):
        _same_bits(findings)
    with findings.check("torch.compile(fullgraph=True)"):
        _compiled(findings)
    with findings.check("bf16 is kept under autocast"):
        _autocast(findings)
    findings.cuda_check("forward of a map of over 2³¹ elements", _large_map)
    findings.cuda_check("forward to an output of over 2³¹ elements", _large_output)
    for form, backward in {"deterministic": backward_kernel, "atomic": backward_atomic}.items():
        findings.cuda_check(
            f"{form} backward to a map of over 2³¹ elements",
            lambda backward=backward: _large_gradient(backward.backward),
        )
    findings.cuda_check("no host sync", lambda: _no_sync(findings))
    findings.cuda_check("CUDA graph of forward and backward", lambda: _graph(findings))


class _Step:
    """Forward and backward of box and mask pooling, as a training step has them."""

    def __init__(self, findings: Findings, dtype: torch.dtype = torch.bfloat16) -> None:
        scene, device = scenes.training(findings), findings.device
        self.maps = [m.requires_grad_() for m in scene.maps(device, dtype)]
        self.rois = [scene.boxes(kind, device) for kind in scenes.SIZES]
        generator = torch.Generator(device).manual_seed(3)
        self.grads = [
            torch.randn(len(r), scene.channels, *size, generator=generator, device=device).to(dtype)
            for r, size in zip(self.rois, scenes.SIZES.values(), strict=True)
        ]

    def forward(self) -> list[Tensor]:
        return roi_align_pyramid_shared(
            self.maps, self.rois, list(scenes.SIZES.values()), scenes.SCALES,
            level_rule="torchvision", aligned=True, backend="triton",
        )  # fmt: skip

    def __call__(self) -> list[Tensor]:
        """Two pooled tensors and four gradients."""
        pooled = self.forward()
        return [*pooled, *torch.autograd.grad(pooled, self.maps, self.grads)]


def _equal(found: list[Tensor], expected: list[Tensor], what: str) -> None:
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        expect(
            torch.equal(a, b),
            f"{what}: tensor {i} differs by {(a.float() - b.float()).abs().max().item():.2e}",
        )


def _same_bits(findings: Findings) -> None:
    step = _Step(findings)
    first = [t.detach().clone() for t in step()]
    expect(any(t.any() for t in first[2:]), "all gradients are zero")
    for _ in range(findings.pick(RUNS, 2) - 1):
        _equal(step(), first, "another run")


def _compiled(findings: Findings) -> None:
    step = _Step(findings)
    compiled = torch.compile(
        step.forward, fullgraph=True, backend=findings.pick("inductor", "aot_eager")
    )
    expected = step()
    pooled = compiled()
    found = [*pooled, *torch.autograd.grad(pooled, step.maps, step.grads)]
    _equal(found, expected, "compiled")


def _autocast(findings: Findings) -> None:
    step = _Step(findings)
    plain = step()
    with torch.autocast(findings.device, torch.bfloat16):
        inside = step()
    for tensor in inside:
        expect(tensor.dtype == torch.bfloat16, f"{tensor.dtype} under autocast, expected bfloat16")
    _equal(inside, plain, "under autocast")


def _no_sync(findings: Findings) -> None:
    """Torch raises where it would wait for the GPU; compiled kernels do not, their first launch may."""
    for deterministic in (True, False):
        step = _Step(findings)
        step()
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            pooled = roi_align_pyramid_shared(
                step.maps, step.rois, list(scenes.SIZES.values()), scenes.SCALES,
                level_rule="torchvision", backend="triton", deterministic=deterministic,
            )  # fmt: skip
            torch.autograd.grad(pooled, step.maps, step.grads)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def _graph(findings: Findings) -> None:
    """Captured once and replayed with other boxes and features, it gives what the eager calls give."""
    step = _Step(findings)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    scene = scenes.training(findings)
    with torch.no_grad():
        for mine, other in zip(step.maps, scene.maps("cuda", torch.bfloat16, seed=7), strict=True):
            mine.copy_(other)
        for kind, boxes in zip(scenes.SIZES, step.rois, strict=True):
            boxes.copy_(scene.boxes(kind, "cuda", seed=7))
    graph.replay()
    torch.cuda.synchronize()
    _equal([t.clone() for t in captured], step(), "replayed")


_SIDE, _CHANNELS = 2100, 256  # two pictures: 2.26e9 elements
_FAR = [2000.0, 1900.0, 8390.0, 8300.0]  # to the last cells, at scale ¼
_HOW = Sampling((0.25,))


def _far_boxes(picture: int) -> Tensor:
    rows = [[picture, *_FAR], [picture, 8300.0, 8300.0, 8400.0, 8400.0]]
    return torch.tensor(rows, dtype=torch.float32, device="cuda")


def _large_map() -> None:
    features = torch.randn(2, _SIDE, _SIDE, _CHANNELS, dtype=torch.bfloat16, device="cuda")
    expect(features.numel() > 2**31, "too small")
    found = forward_kernel.forward([features], _far_boxes(1), (7, 7), _HOW)
    alone = forward_kernel.forward([features[1:].clone()], _far_boxes(0), (7, 7), _HOW)
    expect(bool(found.any()), "all zeros")
    _equal([found], [alone], "the second picture alone")


def _large_output() -> None:
    count = 180_000
    features = torch.randn(1, 64, 64, _CHANNELS, dtype=torch.bfloat16, device="cuda")
    rois = torch.zeros(count, 5, device="cuda")
    rois[:, 3:] = torch.rand(count, 2, device="cuda") * 256
    found = forward_kernel.forward([features], rois, (7, 7), _HOW)
    expect(found.numel() > 2**31, "too small")
    last = forward_kernel.forward([features], rois[-100:].clone(), (7, 7), _HOW)
    _equal([found[-100:]], [last], "the last hundred alone")


def _large_gradient(backward: Callable[..., list[Tensor]]) -> None:
    grad = torch.randn(2, 7, 7, _CHANNELS, dtype=torch.bfloat16, device="cuda")
    shape = (2, _SIDE, _SIDE, _CHANNELS)
    (found,) = backward([grad], [_far_boxes(1)], [shape], torch.bfloat16, _HOW)
    (alone,) = backward([grad], [_far_boxes(0)], [(1, *shape[1:])], torch.bfloat16, _HOW)
    expect(bool(alone.any()), "all zeros")
    expect(not bool(found[0].any()), "a gradient in the first picture, which has no box")
    torch.testing.assert_close(found[1:], alone, atol=2**-7 * alone.abs().max().item(), rtol=0)
