"""Times of prediction in bf16: each stage's own on the GPU, the latency of a picture, and pictures per second."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from statistics import median

import torch

from gpu.findings import Findings, expect, median_ms
from gpu.predict_scene import bytes_of, network, padded, pipeline, static, valid_sizes
from segcli.models.conventions import Postprocess
from segcli.models.inference.pipelined import Collected, Pipelined
from segcli.models.inference.preprocess_kernel import layout, normalised_values, preprocess
from segcli.models.inference.static import on_host
from segcli.models.paste import RunLengths, paste_runs

_TRILLIONS = (
    0.538  # floating-point operations of R50-FPN at 800 × 1344, 1000 proposals and 100 masks
)


def stages(findings: Findings, pictures: int) -> None:
    """Milliseconds of each stage recorded as a graph of its own, so that launches cost nothing; and of all in one."""
    detector = static(findings, network(findings), torch.bfloat16)
    size, shape = valid_sizes(findings)[0], padded(findings)
    device = findings.device
    batch = bytes_of([size] * pictures)
    flat = torch.cat([b.reshape(-1) for b in batch]).to(device)
    table = layout([size] * pictures, [size] * pictures).to(device)
    values = normalised_values((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)).to(device)
    images = torch.zeros(pictures, 3, *shape, dtype=torch.bfloat16, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    sizes = torch.tensor([size] * pictures, dtype=torch.float32, device=device)
    with torch.inference_mode():
        preprocess(flat, table, values, images)
        found = detector.run_trunk(images)
        proposals, valid = detector.propose(found, shape, sizes)
        slots = detector.boxes(found, proposals, valid, sizes)
        calls: dict[str, Callable[[], object]] = {
            "preprocess": lambda: preprocess(flat, table, values, images),
            "trunk": lambda: detector.run_trunk(images),
            "proposals": lambda: detector.propose(found, shape, sizes),
            "boxes": lambda: detector.boxes(found, proposals, valid, sizes),
            "masks": lambda: detector.masks(found, slots),
            "all": lambda: detector(images, sizes),
        }
        report = {name: _graphed_ms(findings, call) for name, call in calls.items()}
        report["all, without a graph"] = _wall_ms(findings, calls["all"])
        whole = detector(images, sizes)
        report["results to the host"] = _wall_ms(findings, lambda: on_host(whole))
        collected = Collected(on_host(whole), whole, None, None)
        report["paste and RLE"] = _wall_ms(findings, lambda: _encoded(collected, size))
    expect(bool((whole.counts > 0).all()), "nothing was found")
    if report["all"] is not None:
        report["all, TFLOP/s"] = round(_TRILLIONS * pictures / report["all"] * 1e3, 1)
    findings.figure(f"stages, batch {pictures}, ms", report)


def trunks(findings: Findings) -> None:
    """The trunk as it is, with cuDNN's algorithms chosen by timing, and by Inductor; batch 1 and 8, ms as a graph."""
    trunk = static(findings, network(findings), torch.bfloat16).trunk
    forms: dict[str, Callable[[torch.Tensor], object]] = {
        "plain": trunk,
        "timed cuDNN": trunk,
        "compiled": torch.compile(trunk, dynamic=False),
    }
    before = torch.backends.cudnn.benchmark
    for pictures in (1, 8):
        images = torch.randn(pictures, 3, *padded(findings), device="cuda", dtype=torch.bfloat16)
        images = images.contiguous(memory_format=torch.channels_last)
        for name, form in forms.items():
            torch.backends.cudnn.benchmark = name == "timed cuDNN"
            try:
                with torch.inference_mode():
                    milliseconds = _graphed_ms(
                        findings, lambda form=form, images=images: form(images)
                    )
            finally:
                torch.backends.cudnn.benchmark = before
            findings.figure(f"trunk, {name}, batch {pictures}, ms", milliseconds)


def _graphed_ms(findings: Findings, call: Callable[[], object]) -> float | None:
    """Median GPU time of the call as a graph; a rehearsal makes the call."""
    call()
    if findings.rehearsal:
        return None
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = call()
    milliseconds = median_ms(graph.replay, repeats=30, cold=False)
    del kept
    return milliseconds


def _wall_ms(findings: Findings, call: Callable[[], object]) -> float | None:
    """Median wall clock of a call and of what it leaves to the device."""
    call()
    if findings.rehearsal:
        return None
    times = []
    for _ in range(15):
        torch.cuda.synchronize()
        started = time.perf_counter()
        call()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return round(median(times) * 1e3, 3)


def _encoded(collected: Collected, original: tuple[int, int]) -> list[RunLengths]:
    """Run lengths of every picture's masks."""
    stream = collected.stream
    with torch.cuda.stream(stream) if stream else contextlib.nullcontext():
        rows = zip(collected.device.masks, collected.device.boxes, strict=True)
        counts = collected.host.counts.tolist()
        return [
            paste_runs(masks[:count], boxes[:count], original, Postprocess())
            for (masks, boxes), count in zip(rows, counts, strict=True)
        ]


def latency(findings: Findings) -> None:
    """One picture at a time, from bytes on the host to run lengths on the host."""
    flow = pipeline(findings, static(findings, network(findings), torch.bfloat16))
    size = valid_sizes(findings)[0]
    picture = bytes_of([size])

    def once() -> None:
        flow.submit(picture, [size], padded(findings))
        _encoded(flow.collect(), size)

    once()
    findings.figure("latency, batch 1, ms", _wall_ms(findings, once))


def throughput(findings: Findings, pictures: int) -> None:
    """Pictures per second, masks and run lengths included, two batches under way; peak memory."""
    flow = pipeline(findings, static(findings, network(findings), torch.bfloat16))
    size = valid_sizes(findings)[0]
    batch = bytes_of([size] * pictures)
    shape = padded(findings)
    _stream_of(flow, batch, size, shape, findings.pick(3, 1))
    if findings.device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    rounds = findings.pick(max(6, 128 // pictures), 2)
    started = time.perf_counter()
    found = _stream_of(flow, batch, size, shape, rounds)
    seconds = time.perf_counter() - started
    expect(found > 0, "nothing was found")
    if not findings.rehearsal:
        rate = {
            "pictures_per_second": round(rounds * pictures / seconds, 1),
            "masks_per_picture": round(found / rounds / pictures, 1),
            "peak_memory_bytes": torch.cuda.max_memory_allocated(),
        }
        findings.figure(f"throughput, batch {pictures}", rate)


def _stream_of(
    flow: Pipelined,
    batch: list[torch.Tensor],
    size: tuple[int, int],
    shape: tuple[int, int],
    rounds: int,
) -> int:
    """How many masks were encoded."""
    masks = 0
    for i in range(rounds + 1):
        if i < rounds:
            flow.submit(batch, [size] * len(batch), shape)
        if i > 0:
            masks += sum(len(r.offsets) - 1 for r in _encoded(flow.collect(), size))
    return masks
