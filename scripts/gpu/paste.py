"""Masks from probabilities to run lengths on the GPU, against the CPU's, and how long they take."""

from __future__ import annotations

import time
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from gpu.findings import Findings, expect, median_ms
from segcli.models.conventions import MaskPaste, Postprocess
from segcli.models.paste import RunLengths, _run_lengths, paste_runs
from segcli.models.paste_boxes import place
from segcli.models.paste_kernel import edges_on_device, launch, tables_of


def run(findings: Findings, out: Path) -> None:
    """Both rules, smooth masks and masks that only rounding decides; times in a small and a large picture."""
    del out
    for rule in get_args(MaskPaste):
        how = Postprocess(mask_paste=rule, mask_inclusive=rule == "pixel_centres")
        for kind in ("blobs", "near a half"):
            with findings.check(f"{rule}, {kind}: run lengths equal to the CPU's"):
                _equal(findings, kind, how)
        findings.cuda_check(f"{rule}: time", lambda how=how: _time(findings, how))


def _masks(kind: str, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    if kind == "near a half":
        return 0.5 + 1e-7 * torch.randn(count, 28, 28, generator=generator)
    coarse = torch.randn(count, 1, 5, 5, generator=generator) * 6
    return F.interpolate(coarse, (28, 28), mode="bicubic").sigmoid()[:, 0].contiguous()


def _boxes(count: int, size: tuple[int, int]) -> Tensor:
    """From 8 pixels to the full frame, some over the edge."""
    generator = torch.Generator().manual_seed(1)
    extent = torch.tensor([size[1], size[0]], dtype=torch.float32)
    sides = 8 * (extent / 8).pow(torch.rand(count, 2, generator=generator))
    centre = torch.rand(count, 2, generator=generator) * extent
    boxes = torch.cat((centre - sides / 2, centre + sides / 2), 1)
    boxes[0] = torch.cat((extent * 0, extent))
    return boxes


def _equal(findings: Findings, kind: str, how: Postprocess) -> None:
    """Offsets and counts; a mask that differs is counted, and by how many pixels in all."""
    count, size = findings.pick((1000, (480, 640)), (2, (12, 20)))
    masks, boxes = _masks(kind, count), _boxes(count, size)
    expected = paste_runs(masks, boxes, size, how)
    found = _found(findings, masks, boxes, size, how)
    wrong = sum(not torch.equal(_runs(found, i), _runs(expected, i)) for i in range(count))
    findings.figure(f"{how.mask_paste}, {kind}: masks that differ", f"{wrong} of {count}")
    expect(wrong == 0, f"{wrong} of {count} masks differ from the CPU's")


def _found(
    findings: Findings, masks: Tensor, boxes: Tensor, size: tuple[int, int], how: Postprocess
) -> RunLengths:
    if not findings.rehearsal:
        return paste_runs(masks.to("cuda"), boxes.to("cuda"), size, how)
    x, y = place(boxes, masks.shape[1], size, how.mask_paste)
    keys = edges_on_device(masks, x, y, size, how)
    return _run_lengths(keys, len(masks), size[0] * size[1])


def _runs(runs: RunLengths, i: int) -> Tensor:
    return runs.counts.view(torch.int32)[int(runs.offsets[i]) : int(runs.offsets[i + 1])]


def _time(findings: Findings, how: Postprocess) -> None:
    for size in ((800, 1333), (2160, 3840)):
        findings.figure(f"{how.mask_paste} 100 masks {size[0]}x{size[1]}", _figures(how, size))


def _figures(how: Postprocess, size: tuple[int, int]) -> dict[str, float]:
    """Milliseconds of everything with its copy to the host, of one of the kernel's two walks, of the CPU; memory."""
    masks, boxes = _masks("blobs", 100), _boxes(100, size)
    on_gpu = masks.cuda(), boxes.cuda()
    tables = tables_of(*place(on_gpu[1], 28, size, how.mask_paste))
    started = time.perf_counter()
    paste_runs(masks, boxes, size, how)
    found = {"cpu_ms": round((time.perf_counter() - started) * 1e3, 1)}
    found["all_ms"] = median_ms(lambda: paste_runs(*on_gpu, size, how), repeats=20)
    counts = torch.zeros((100, size[1]), dtype=torch.int32, device="cuda")
    found["walk_ms"] = median_ms(
        lambda: launch(on_gpu[0], tables, None, counts, size, how), repeats=20
    )
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    paste_runs(*on_gpu, size, how)
    return found | {"peak_bytes": torch.cuda.max_memory_allocated() - before}
