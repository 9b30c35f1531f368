"""Launch parameters: the neighbours of what `launch.py` chooses, timed with a cold L2 cache."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpu import scenes
from gpu.findings import Findings, expect, median_ms
from segcli.models.roi_align import backward_kernel, forward_kernel

SECONDS = 80.0  # a sweep that is cut short says so
WORTH_SAYING = 0.03


def run(findings: Findings, out: Path) -> None:
    """Forward for boxes and masks, and the deterministic backward of a training step."""
    del out
    jobs = list(_jobs(findings))
    for name, module, attribute, call in jobs:
        until = time.monotonic() + SECONDS / len(jobs)
        with findings.check(f"{name}: all launches give the same"):
            rows = _sweep(findings, module, attribute, call, until)
            findings.figure(name, rows)
            _say(findings, name, rows)
            wrong = [row for row in rows if "wrong" in row]
            expect(not wrong, f"{len(wrong)} launches give something else: {wrong[:1]}")


def _jobs(findings: Findings) -> Iterator[tuple[str, Any, str, Callable[[], list[Tensor]]]]:
    """Name, the module and its launch function, and a call that launches."""
    scene, how, device = scenes.inference(findings), scenes.sampling(), findings.device
    for kind, dtype in findings.pick(
        (("box", torch.bfloat16), ("box", torch.float32), ("mask", torch.bfloat16)),
        (("box", torch.bfloat16),),
    ):
        maps = [m.permute(0, 2, 3, 1) for m in scene.maps(device, dtype)]
        rois, size = scene.boxes(kind, device), scenes.SIZES[kind]
        yield (
            f"forward {kind} {_name(dtype)}", forward_kernel, "forward_launch",
            lambda maps=maps, rois=rois, size=size: [forward_kernel.forward(maps, rois, size, how)],
        )  # fmt: skip
    step = scenes.training(findings)
    boxes = [step.boxes(kind, device) for kind in scenes.SIZES]
    for dtype in findings.pick((torch.bfloat16, torch.float32), (torch.bfloat16,)):
        grads = [
            torch.randn(len(r), *size, step.channels, device=device).to(dtype)
            for r, size in zip(boxes, scenes.SIZES.values(), strict=True)
        ]
        yield (
            f"backward {_name(dtype)}", backward_kernel, "backward_launch",
            lambda grads=grads, dtype=dtype: backward_kernel.backward(
                grads, boxes, step.shapes(), dtype, how
            ),
        )  # fmt: skip


def _name(dtype: torch.dtype) -> str:
    return {torch.bfloat16: "bf16", torch.float32: "fp32"}[dtype]


def _sweep(
    findings: Findings, module: Any, attribute: str, call: Callable[[], list[Tensor]], until: float
) -> list[dict[str, Any]]:
    """The chosen launch first, then its neighbours, each with its time; the last row says what was left out."""
    chosen = _chosen(module, attribute, call)
    expected = [t.clone() for t in call()]
    rows = [_row(findings, chosen, call)]
    candidates = list(neighbours(chosen))[: findings.pick(None, 2)]
    for i, candidate in enumerate(candidates):
        if time.monotonic() > until and not findings.rehearsal:
            rows.append({"left_out": len(candidates) - i})
            break
        with _forced(module, attribute, candidate):
            try:
                found = call()
            except Exception as error:
                rows.append(dataclasses.asdict(candidate) | {"impossible": type(error).__name__})
                continue
            off = _difference(found, expected)
            if off <= 2**-7:
                rows.append(_row(findings, candidate, call))
            else:
                rows.append(dataclasses.asdict(candidate) | {"wrong": off})
    return rows


def _difference(found: list[Tensor], expected: list[Tensor]) -> float:
    """Largest difference as a share of the largest number; infinite where there is NaN."""
    worst = 0.0
    for ours, theirs in zip(found, expected, strict=True):
        off = (ours.float() - theirs.float()).abs().max().item()
        largest = theirs.float().abs().max().item()
        worst = max(worst, off / largest if largest > 0 else off) if off == off else float("inf")
    return worst


def neighbours(chosen: Any) -> Iterator[Any]:
    """Each whole number halved, doubled and quartered alone; then each two of them in opposite directions."""
    names = [f.name for f in dataclasses.fields(chosen) if _number(chosen, f.name) > 0]
    for name in names:
        for factor in (0.5, 2.0, 0.25):
            yield from _scaled(chosen, {name: factor})
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            yield from _scaled(chosen, {first: 0.5, second: 2.0})
            yield from _scaled(chosen, {first: 2.0, second: 0.5})
            yield from _scaled(chosen, {first: 0.5, second: 0.5})


def _number(chosen: Any, name: str) -> int:
    value = getattr(chosen, name)
    return value if type(value) is int else 0


def _scaled(chosen: Any, factors: dict[str, float]) -> Iterator[Any]:
    changed = {name: int(getattr(chosen, name) * factor) for name, factor in factors.items()}
    if min(changed.values()) >= 1:
        yield dataclasses.replace(chosen, **changed)


def _chosen(module: Any, attribute: str, call: Callable[[], object]) -> Any:
    """What the table gives for this call."""
    seen: list[Any] = []
    table = getattr(module, attribute)

    def note(*args: Any, **kwargs: Any) -> Any:
        seen.append(table(*args, **kwargs))
        return seen[-1]

    setattr(module, attribute, note)
    try:
        call()
    finally:
        setattr(module, attribute, table)
    expect(len(seen) > 0, f"{attribute} was not asked")
    return seen[-1]


@contextmanager
def _forced(module: Any, attribute: str, launch: Any) -> Iterator[None]:
    table = getattr(module, attribute)
    setattr(module, attribute, lambda *_args, **_kwargs: launch)
    try:
        yield
    finally:
        setattr(module, attribute, table)


def _row(findings: Findings, launch: Any, call: Callable[[], object]) -> dict[str, Any]:
    row = dataclasses.asdict(launch)
    return row if findings.rehearsal else row | {"ms": median_ms(call, repeats=20)}


def _say(findings: Findings, name: str, rows: list[dict[str, Any]]) -> None:
    """What would be faster, and by how much."""
    timed = sorted((r for r in rows[1:] if "ms" in r), key=lambda r: r["ms"])
    if findings.rehearsal or not timed:
        return
    gain = 1 - timed[0]["ms"] / rows[0]["ms"]
    if gain > WORTH_SAYING:
        findings.figure(
            f"{name}: faster", {"gain": round(gain, 3), "instead_of": rows[0], "is": timed[0]}
        )
