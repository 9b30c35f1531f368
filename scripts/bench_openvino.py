"""Times the R50-FPN trunk and heads by OpenVINO against torch, interleaved in one run, with the differences of outputs.

    python scripts/bench_openvino.py [--size 800 1088] [--repeats 4] [--heads]

Each row gives wall seconds and CPU seconds of all threads, the best of the repeats, and their ratios to eager fp32.
Where others use the machine too, the CPU seconds say more.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from segcli.models import MaskRCNN, ModelSpec
from segcli.models.architectures import R50_FPN
from segcli.models.inference import Detector, Trunk, TrunkOutput
from segcli.models.inference.heads import BoxHead, MaskHead
from segcli.models.inference.units import can_pack, pack, to_type
from segcli.models.spec import Anchors
from segcli.prediction.calibration import Calibration
from segcli.prediction.openvino_engine import OpenVINOModule, open_trunk

Run = Callable[[], list[Tensor]]


def network() -> MaskRCNN:
    """R50-FPN, random weights scaled so that features keep their size from stage to stage."""
    torch.manual_seed(0)
    net = MaskRCNN(ModelSpec(R50_FPN.name, 90, Anchors(), R50_FPN.conventions)).eval()
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.normal_(module.bias, std=0.1)  # of zeros OpenVINO's int8 makes nonsense
    for name, module in net.backbone.named_modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if name.endswith("conv3"):  # ends a residual branch
                module.weight.data.mul_(0.2)
    return net


def picture(size: tuple[int, int], seed: int) -> Tensor:
    """Smooth made-up pixels float32 (1, 3, H, W)."""
    noise = torch.randn(1, 3, 12, 16, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(noise, size, mode="bicubic").contiguous(
        memory_format=torch.channels_last
    )


def flat(found: TrunkOutput) -> list[Tensor]:
    """All outputs behind one another."""
    return [*found.features, *found.logits, *found.deltas]


def stock(net: MaskRCNN, images: Tensor) -> list[Tensor]:
    """Backbone and RPN head by torchvision's modules, NCHW, norms not folded."""
    features = net.backbone(ImageList(images, [(0, 0)]).tensors)
    logits, deltas = net.rpn.head(list(features.values()))
    return [*list(features.values())[:4], *logits, *deltas]


def measure(runs: dict[str, Run], repeats: int) -> None:
    """Print a row per run; the first is the baseline of speed and of values."""
    wall, cpu = dict.fromkeys(runs, math.inf), dict.fromkeys(runs, math.inf)
    outputs: dict[str, list[Tensor]] = {}
    with torch.inference_mode():
        for i in range(repeats + 1):  # the first does not count
            for name, run in runs.items():
                start, start_cpu = time.perf_counter(), time.process_time()
                outputs[name] = run()
                if i:
                    wall[name] = min(wall[name], time.perf_counter() - start)
                    cpu[name] = min(cpu[name], time.process_time() - start_cpu)
    base = next(iter(runs))
    for name in runs:
        worst = max(
            float((a.float() - b).norm() / b.norm())
            for a, b in zip(outputs[name], outputs[base], strict=True)
        )
        print(
            f"{name:22} {wall[name]:.3f} s {wall[base] / wall[name]:5.2f}×"
            f"   CPU {cpu[name]:.3f} s {cpu[base] / cpu[name]:5.2f}×   relative difference ≤ {worst:.1e}"
        )


def trunks(net: MaskRCNN, size: tuple[int, int]) -> dict[str, Run]:
    """Every way to run the trunk."""
    images = picture(size, 0)
    plain = images.contiguous()
    calibration = Calibration.on([picture(size, seed) for seed in range(4)])
    runs: dict[str, Run] = {"eager fp32 NCHW": lambda: stock(net, plain)}
    for dtype in (torch.float32, torch.bfloat16):
        detector = Detector(net, "cpu", dtype)
        runs[f"torch packed {dtype}"[:22].replace("torch.", "")] = _of(detector.trunk, images)
    for precision in ("fp32", "bf16", "int8"):
        for start in ("first", "second"):
            begun, begun_cpu = time.perf_counter(), time.process_time()
            engine = open_trunk(Trunk(net), precision, calibration if precision == "int8" else None)
            took, took_cpu = time.perf_counter() - begun, time.process_time() - begun_cpu
            print(f"OpenVINO {precision}, {start} start: {took:.2f} s (CPU {took_cpu:.2f} s)")
        runs[f"OpenVINO {precision}"] = _of(engine, images)
    return runs


def _of(engine: Any, images: Tensor) -> Run:
    return lambda: flat(engine(images))


def heads(net: MaskRCNN, which: str, rois: int) -> dict[str, Run]:
    """Every way to run a head over some RoIs."""
    made: type[BoxHead] | type[MaskHead] = BoxHead if which == "box" else MaskHead
    side = 7 if which == "box" else 14
    pooled = torch.randn(rois, 256, side, side).contiguous(memory_format=torch.channels_last)
    labels = [] if which == "box" else [torch.arange(rois) % 90 + 1]
    exact = made(net.roi_heads).eval()
    runs: dict[str, Run] = {"eager fp32": _head(exact, pooled, labels)}
    for dtype, precision in ((torch.float32, "fp32"), (torch.bfloat16, "bf16")):
        head, given = made(net.roi_heads).eval(), pooled.to(dtype)
        to_type(head, dtype)
        if can_pack(dtype):
            pack(head)
        example = [torch.zeros(2, 256, side, side), *(label[:2] for label in labels)]
        ours = OpenVINOModule.of(made(net.roi_heads).eval(), example, precision)
        runs[f"torch packed {precision}"] = _head(head, given, labels)
        runs[f"OpenVINO {precision}"] = _head(ours, given, labels)
    return runs


def _head(head: Any, pooled: Tensor, labels: list[Tensor]) -> Run:
    def run() -> list[Tensor]:
        found = head(pooled, *labels)
        return [found] if isinstance(found, Tensor) else list(found)

    return run


def main() -> None:
    """Parse and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, nargs=2, default=(800, 1088))
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--heads", action="store_true", help="the heads instead of the trunk")
    asked = parser.parse_args()
    net = network()
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    if not asked.heads:
        measure(trunks(net, tuple(asked.size)), asked.repeats)
        return
    for which, rois in (("box", 100), ("box", 1000), ("mask", 10), ("mask", 100)):
        print(f"{which} head, {rois} RoIs")
        measure(heads(net, which, rois), asked.repeats)


if __name__ == "__main__":
    main()
