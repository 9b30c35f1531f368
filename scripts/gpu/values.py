"""Forward and backward at full size against torchvision's operator and sums in float64; the choice of levels."""

from __future__ import annotations

import typing
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torchvision.ops import roi_align as torchvision_roi_align

from gpu import exact, scenes
from gpu.findings import Findings, expect
from segcli.models.conventions import LevelRule
from segcli.models.roi_align import backward_atomic, backward_kernel, forward_kernel, roi_align
from segcli.models.roi_align.levels import area_thresholds, assign_levels
from segcli.models.roi_align.sampling import Sampling

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
BACKWARDS = {"deterministic": backward_kernel.backward, "atomic": backward_atomic.backward}


def run(findings: Findings, out: Path) -> None:
    """All types and sizes, one level and four."""
    del out
    if findings.rehearsal:
        with findings.check("the float64 sums are those of the reference"):
            _exact_is_the_reference(findings)
    for name, dtype in findings.pick(DTYPES, {"bf16": torch.bfloat16}).items():
        for kind in scenes.SIZES:
            with findings.check(f"forward {name} {kind}"):
                findings.figure(f"forward {name} {kind}", _forward(findings, kind, dtype))
        for form, backward in BACKWARDS.items():
            with findings.check(f"{form} backward {name}"):
                findings.figure(f"{form} backward {name}", _backward(findings, backward, dtype))
    with findings.check("torchvision's operator on one level"):
        findings.figure("against torchvision", _against_torchvision(findings))
    for rule in typing.get_args(LevelRule):
        with findings.check(f"level choice {rule}"):
            _levels(findings, rule)


def _exact_is_the_reference(findings: Findings) -> None:
    scene = scenes.inference(findings)
    maps, rois = scene.maps("cpu", torch.float32), scene.boxes("box", "cpu")
    found = exact.pooled([maps[0].permute(0, 2, 3, 1)], rois, (7, 7), Sampling((0.25,)))
    expected = roi_align(maps[0].double(), rois, (7, 7), 0.25, backend="reference")
    torch.testing.assert_close(found.permute(0, 3, 1, 2), expected, atol=1e-12, rtol=0)


def _forward(findings: Findings, kind: str, dtype: torch.dtype) -> dict[str, float]:
    """fp32 within 1e-5; 16 bits within one ulp of max(|out|, 2⁻⁸ · max|tap|), taken over the RoI's channel."""
    scene, size = scenes.inference(findings), scenes.SIZES[kind]
    maps = [m.permute(0, 2, 3, 1) for m in scene.maps(findings.device, dtype)]
    rois, how = scene.boxes(kind, findings.device), scenes.sampling()
    found = forward_kernel.forward(maps, rois, size, how).double()
    expected = exact.pooled(maps, rois, size, how)
    off = (found - expected).abs()
    if dtype == torch.float32:
        expect(off.max().item() <= 1e-5, f"off by {off.max().item():.2e}, expected 1e-5 at most")
        return {"largest_difference": off.max().item()}
    # an average of |taps| is no more than the largest, so the bound is no looser than it should be
    taps = exact.pooled([m.abs() for m in maps], rois, size, how)
    number = torch.finfo(dtype)
    magnitude = torch.maximum(expected.abs(), taps / 256).clamp(min=number.tiny)
    ulps = (off / (torch.exp2(torch.floor(torch.log2(magnitude))) * number.eps)).max().item()
    expect(ulps <= 1.0, f"off by {ulps:.3f} ulp, expected 1 at most")
    return {"largest_difference_ulp": ulps}


def _backward(
    findings: Findings, backward: Callable[..., list[Tensor]], dtype: torch.dtype
) -> dict[str, float]:
    """Both poolings of a training step into one gradient; 1e-4 of the largest, and 16 bits' own rounding."""
    scene, device, how = scenes.training(findings), findings.device, scenes.sampling()
    rois = [scene.boxes(kind, device) for kind in scenes.SIZES]
    generator = torch.Generator(device).manual_seed(1)
    grads = [
        torch.randn(len(r), *size, scene.channels, generator=generator, device=device).to(dtype)
        for r, size in zip(rois, scenes.SIZES.values(), strict=True)
    ]
    found = backward(grads, rois, scene.shapes(), dtype, how)
    expected = exact.gradients(grads, rois, scene.shapes(), how)
    worst = 0.0
    for ours, theirs in zip(found, expected, strict=True):
        largest = theirs.abs().max().item()
        own = theirs.abs() * torch.finfo(dtype).eps if dtype != torch.float32 else 0.0
        off = ((ours.double() - theirs).abs() - own).clamp(min=0).max().item()
        worst = max(worst, off / largest if largest > 0 else off)
    expect(worst <= 1e-4, f"off by {worst:.2e} of the largest, expected 1e-4 at most")
    return {"largest_relative_difference": worst}


def _against_torchvision(findings: Findings) -> dict[str, float]:
    """On one level in fp32, aligned and not; theirs rounds coordinates by fused arithmetic, so only nearly."""
    scene = scenes.inference(findings)
    maps, rois = scene.maps(findings.device, torch.float32), scene.boxes("box", findings.device)
    found = {}
    for aligned in (False, True):
        theirs = torchvision_roi_align(maps[0].contiguous(), rois, (7, 7), 0.25, 2, aligned)
        ours = roi_align(maps[0], rois, (7, 7), 0.25, aligned=aligned, backend="triton")
        off = (ours - theirs).abs()
        found["aligned" if aligned else "legacy"] = off.max().item()
        expect(off.max().item() <= 1e-3, f"off by {off.max().item():.2e}, expected 1e-3 at most")
        expect(off.mean().item() <= 1e-6, f"off by {off.mean().item():.2e} on average")
    return found


def _levels(findings: Findings, rule: LevelRule) -> None:
    """Boxes of all sizes; each level holds its own number everywhere, so a pooled value names the level."""
    count = findings.pick(1_000_000, 50)
    device, generator = findings.device, torch.Generator().manual_seed(2)
    side = torch.exp2(torch.rand(count, 2, generator=generator) * 9 + 2)
    centre = 1024 + (torch.rand(count, 2, generator=generator) - 0.5) * 100
    boxes = torch.cat((centre - side / 2, centre + side / 2), 1)
    rois = torch.cat((torch.zeros(count, 1), boxes), 1).to(device)
    maps = [
        torch.full((1, 2048 // s, 2048 // s, 16), float(s), device=device) for s in (4, 8, 16, 32)
    ]
    how = Sampling(scenes.SCALES, area_thresholds(2, 5, rule), 1)
    found = forward_kernel.forward(maps, rois, (1, 1), how)[:, 0, 0, 0].cpu()
    expected = 4.0 * 2 ** assign_levels(boxes, 2, 5, rule)
    wrong = int((found.round() != expected).sum())
    expect(wrong == 0, f"{wrong} of {count} boxes on another level than the formula's")
