"""The network with its RoIAlign on the GPU: nano learns, and R50-FPN's steps are timed."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpu.findings import Findings, expect
from segcli.models import ARCHITECTURES, Anchors, MaskRCNN, ModelSpec
from segcli.models.mask_targets import PATCH, RIM

BACKENDS = ("triton", "torchvision")


def run(findings: Findings, out: Path) -> None:
    """Losses fall; a second run has the same ones; then times of a large network with ours and theirs."""
    del out
    steps = findings.pick(40, 2)
    first: list[float] = []
    with findings.check("nano learns on made-up scenes, bf16"):
        first = _learn(findings, steps)[0]
        findings.figure("nano losses", [round(loss, 4) for loss in first])
        _expect_learning(findings, first)
    with findings.check("two seeded runs have the same bits"):
        once, twice = (_learn(findings, steps, deterministic=True) for _ in range(2))
        equal = once[0] == twice[0]
        findings.figure("deterministic", {"equal": equal, "torch says it is not": once[1]})
        expect(equal or bool(once[1]), "losses differ, and torch names no operation that would")
    for backend in findings.pick(BACKENDS, ("triton",)):
        with findings.check(f"R50-FPN with {backend}"):
            findings.figure(f"R50-FPN with {backend}", _r50(findings, backend))


def _expect_learning(findings: Findings, losses: list[float]) -> None:
    expect(
        all(loss == loss and abs(loss) < float("inf") for loss in losses), "a loss is not finite"
    )
    if not findings.rehearsal:
        early, late = sum(losses[:5]) / 5, sum(losses[-5:]) / 5
        expect(late < 0.8 * early, f"losses went from {early:.3f} to {late:.3f}, expected a fall")


def network(findings: Findings, name: str, backend: str) -> MaskRCNN:
    """Seeded random weights; a rehearsal samples few RoIs."""
    torch.manual_seed(0)
    architecture = ARCHITECTURES[name]
    anchors = (
        Anchors(((16,), (32,), (64,), (128,), (256,)))
        if architecture.anchors_from_data
        else Anchors()
    )
    model = MaskRCNN(ModelSpec(name, 2, anchors, architecture.conventions), backend)
    if findings.rehearsal:
        model.roi_heads.fg_bg_sampler.batch_size_per_image = 4
        model.roi_heads.mask_rois = 1
        model.rpn._post_nms_top_n = {"training": 8, "testing": 2}
    return model.to(findings.device, memory_format=torch.channels_last)


def scene(
    findings: Findings, pictures: int, size: tuple[int, int], seed: int
) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Noise with bright (class 1) and dark (class 2) rectangles, and their targets."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.3 * torch.randn(pictures, 3, *size, generator=generator)
    targets = []
    for image in images:
        count = findings.pick(6, 1)
        sides = (torch.rand(count, 2, generator=generator) * 0.25 + 0.12) * torch.tensor(
            [size[1], size[0]]
        )
        corners = torch.rand(count, 2, generator=generator) * (
            torch.tensor([size[1], size[0]]) - sides
        )
        boxes = torch.cat((corners, corners + sides), 1).round()
        labels = torch.randint(1, 3, (count,), generator=generator)
        for (x1, y1, x2, y2), label in zip(boxes.int().tolist(), labels.tolist(), strict=True):
            image[:, y1:y2, x1:x2] += 1.5 if label == 1 else -1.5
        masks = torch.zeros(count, PATCH + 2 * RIM, PATCH + 2 * RIM, dtype=torch.uint8)
        masks[:, RIM:-RIM, RIM:-RIM] = 255
        one = {"boxes": boxes, "labels": labels, "masks": masks}
        targets.append({key: tensor.to(findings.device) for key, tensor in one.items()})
    return images.to(findings.device, memory_format=torch.channels_last), targets


def _learn(
    findings: Findings, steps: int, *, deterministic: bool = False
) -> tuple[list[float], list[str]]:
    """Losses of a seeded run in bf16, and what torch calls not deterministic."""
    pictures, size = findings.pick((8, (256, 320)), (1, (32, 64)))
    model = network(findings, "mask-rcnn-nano", "triton").train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            for step in range(steps):
                images, targets = scene(findings, pictures, size, seed=step % 8)
                losses.append(_train_step(findings, model, optimizer, images, targets))
            losses = [loss.item() for loss in losses]
    finally:
        torch.use_deterministic_algorithms(False)
    named = {str(w.message).split(". ")[0][:160] for w in said if "determinis" in str(w.message)}
    return losses, sorted(named)


def _train_step(
    findings: Findings,
    model: MaskRCNN,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    targets: Any,
) -> Tensor:
    """One step; the summed loss, still on the device."""
    sizes = [(images.shape[2], images.shape[3])] * len(images)
    with torch.autocast(findings.device, torch.bfloat16):
        losses = model(images, sizes, targets)
    assert isinstance(losses, dict)
    total = torch.stack([loss.float() for loss in losses.values()]).sum()
    optimizer.zero_grad(set_to_none=True)
    total.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    optimizer.step()
    return total.detach()


def _r50(findings: Findings, backend: str) -> dict[str, Any]:
    """Milliseconds, pictures per second and peak memory of a training and of an inference step."""
    name = findings.pick("mask-rcnn-r50-fpn", "mask-rcnn-nano")
    pictures, size = findings.pick((2, (800, 1344)), (1, (32, 64)))
    model = network(findings, name, backend)
    _calm(model)
    images, targets = scene(findings, pictures, size, seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)  # times, not learning
    model.train()
    train = _timed(
        findings, lambda: _train_step(findings, model, optimizer, images, targets), pictures
    )
    model.eval()
    model.set_limits(score=findings.pick(0.0, 0.9), max_detections=findings.pick(100, 1))
    sizes = [size] * pictures

    def infer() -> object:
        with torch.inference_mode(), torch.autocast(findings.device, torch.bfloat16):
            return model(images, sizes)

    return {
        "pictures": pictures,
        "size": size,
        "training": train,
        "inference": _timed(findings, infer, pictures),
    }


def _calm(model: MaskRCNN) -> None:
    """Random residual blocks add up to huge numbers; small last scales keep them where trained weights are."""
    for name, tensor in model.backbone.state_dict().items():
        if name.endswith("bn3.weight"):
            tensor.mul_(0.2)


def _timed(
    findings: Findings, call: Callable[[], object], pictures: int
) -> dict[str, float] | None:
    """Wall clock of a step, host included, as a user has it; None in a rehearsal."""
    for _ in range(findings.pick(5, 1)):
        call()
    if findings.rehearsal:
        return None
    torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(20):
        torch.cuda.synchronize()
        started = time.perf_counter()
        call()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    median = sorted(times)[len(times) // 2]
    return {
        "ms": round(median * 1e3, 3),
        "pictures_per_second": round(pictures / median, 2),
        "peak_memory_bytes": torch.cuda.max_memory_allocated(),
    }
