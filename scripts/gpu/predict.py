"""The detector of fixed shapes on the GPU: right, without waiting, as a graph; then what it takes, stage by stage."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import nms

from gpu import predict_command, predict_times
from gpu.findings import Findings, expect
from gpu.predict_scene import bytes_of, network, padded, pipeline, slots, static, valid_sizes
from segcli.models import Detections
from segcli.models.conventions import Preprocess
from segcli.models.inference.detector import Detector
from segcli.models.inference.graphs import GraphedDetector
from segcli.models.inference.nms import suppress
from segcli.models.inference.preprocess_kernel import layout, normalised_values, preprocess
from segcli.models.inference.static import StaticDetections, on_host, per_picture
from segcli.prediction.gpu_decode import GpuDecoder, decode_cost
from segcli.preprocess import collate, prepare


def run(findings: Findings, out: Path) -> None:
    """Each on its own; those that need CUDA itself are named in a rehearsal."""
    del out
    with findings.check("NMS keeps what torchvision's keeps on a CPU"):
        _nms(findings)
    with findings.check("preprocessing equals the CPU's"):
        _preprocess(findings)
    with findings.check("fixed shapes find what changing shapes find, fp32"):
        _equal_outputs(findings)
    with findings.check("the pipeline finds what the detector finds, bf16"):
        _pipelined(findings)
    with findings.check("nano, whose group norms keep float32 factors, runs in bf16"):
        _group_norm(findings)
    findings.cuda_check("a graph gives the bits of the calls it recorded", lambda: _graph(findings))
    findings.cuda_check("nvjpeg decodes what the CPU decodes, nearly", lambda: _nvjpeg(findings))
    findings.cuda_check("no host sync from the upload to the last copy", lambda: _no_sync(findings))
    predict_command.run(findings)
    for pictures in findings.pick((1, 8), (1,)):
        with findings.check(f"stages, batch {pictures}"):
            predict_times.stages(findings, pictures)
    with findings.check("latency"):
        predict_times.latency(findings)
    for pictures in findings.pick((1, 2, 4, 8, 16, 32), (2,)):
        with findings.check(f"throughput, batch {pictures}"):
            predict_times.throughput(findings, pictures)
    findings.cuda_check("other ways to run the trunk", lambda: predict_times.trunks(findings))


def _nms(findings: Findings) -> None:
    """All sets of eight pictures' levels, and candidates of 90 classes."""
    for groups, count, labels in findings.pick(((40, 1000, 1), (8, 2048, 90)), ((2, 40, 3),)):
        generator = torch.Generator().manual_seed(count)
        corner = 1000 * torch.rand(groups, count, 2, generator=generator)
        side = 20 + 300 * torch.rand(groups, count, 2, generator=generator)
        boxes = torch.cat((corner, corner + side), 2)
        valid = torch.rand(groups, count, generator=generator) > 0.1
        named = torch.randint(0, labels, (groups, count), generator=generator)
        there = [t.to(findings.device) for t in (boxes, valid, named)]
        found = suppress(there[0], there[1], 0.5, there[2])
        expected = torch.zeros_like(valid)
        scores = torch.arange(count, 0, -1).float()
        for g in range(groups):
            for label in range(labels):
                rows = torch.where(valid[g] & (named[g] == label))[0]
                expected[g, rows[nms(boxes[g, rows], scores[rows], 0.5)]] = True
        wrong = int((found.cpu() != expected).sum())
        expect(wrong == 0, f"{wrong} of {groups} × {count} boxes differ")


def _preprocess(findings: Findings) -> None:
    """Enlarged, made smaller and kept, against `segcli.preprocess.prepare`."""
    how = findings.pick(Preprocess(), Preprocess(24, 40))
    sizes = findings.pick([(480, 640), (2000, 1500), (800, 1333)], [(20, 31), (40, 24)])
    images = bytes_of(sizes)
    expected, resized = collate([prepare(image.numpy(), how).tensor for image in images], 32)
    batch = torch.empty_like(expected, device=findings.device)
    batch = batch.contiguous(memory_format=torch.channels_last)
    flat = torch.cat([image.reshape(-1) for image in images]).to(findings.device)
    table = layout(sizes, resized).to(findings.device)
    preprocess(flat, table, normalised_values(how.mean, how.std).to(findings.device), batch)
    worst = (batch.cpu() - expected).abs().max().item()
    findings.figure("preprocessing, largest difference", worst)
    expect(worst <= 5e-6, f"differs by {worst:.1e} where values are up to 2.6")


@contextmanager
def _without_tf32() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _equal_outputs(findings: Findings) -> None:
    """Against the detector that is tested against torchvision, both on this device in float32."""
    model, sizes = network(findings), valid_sizes(findings)
    generator = torch.Generator().manual_seed(4)
    images = torch.zeros(2, 3, *padded(findings))
    for row, (h, w) in zip(images, sizes, strict=True):
        row[:, :h, :w] = torch.randn(3, h, w, generator=generator)
    images = images.to(findings.device)
    with _without_tf32():
        dynamic = Detector(model, findings.device)(
            images, sizes, score=0.05, max_detections=slots(findings)
        )
        here = torch.tensor(sizes, dtype=torch.float32, device=findings.device)
        found = on_host(static(findings, model, torch.float32)(images, here))
    counts = found.counts.tolist()
    findings.figure("detections of two pictures", counts)
    expect(min(counts) > 0, f"{counts} detections: nothing to compare")
    expect(not found.short.any(), "candidates were too few")
    for ours, theirs in zip(per_picture(found), dynamic, strict=True):
        theirs = Detections(
            *(t.cpu() for t in (theirs.boxes, theirs.scores, theirs.labels, theirs.masks))
        )
        _expect_equal(ours, theirs)


def _expect_equal(ours: Detections, theirs: Detections) -> None:
    """The design's rule: every detection has its partner but for one at the end; boxes, scores and masks agree."""
    same = ours.labels[:, None] == theirs.labels[None]
    same &= (ours.scores[:, None] - theirs.scores[None]).abs() <= 2e-4
    same &= (ours.boxes[:, None] - theirs.boxes[None]).abs().amax(2) <= 1e-2
    alone = int((~same.any(1)).sum()), int((~same.any(0)).sum())
    expect(max(alone) <= 1, f"{alone} detections of {len(ours.boxes)} have no partner")
    rows = torch.where(same.any(1))[0]
    partner = same[rows].float().argmax(1)
    worst = (ours.masks[rows] - theirs.masks[partner]).abs().max().item()
    expect(worst <= 1e-2, f"mask probabilities differ by {worst:.1e}")


def _pipelined(findings: Findings) -> None:
    """Bytes through the pipeline, two batches at once, against one batch after another."""
    detector = static(findings, network(findings), torch.bfloat16)
    flow, sizes = pipeline(findings, detector), valid_sizes(findings)
    batches = [bytes_of(sizes, seed) for seed in range(findings.pick(4, 3))]
    found: list[list[Tensor]] = []
    for batch in batches:
        if flow.full:
            found.append(list(flow.collect().host))
        flow.submit(batch, sizes, padded(findings))
    while len(found) < len(batches):
        found.append(list(flow.collect().host))
    for batch, ours in zip(batches, found, strict=True):
        flow.submit(batch, sizes, padded(findings))
        for a, b in zip(ours, flow.collect().host, strict=True):
            expect(torch.equal(a, b), "batches that overlap differ from one after another")


def _group_norm(findings: Findings) -> None:
    """Plainly and in fixed shapes; both see the same features but for bf16's rounding, so scores are near."""
    model, sizes = network(findings, "mask-rcnn-nano"), valid_sizes(findings)
    images = torch.randn(2, 3, *padded(findings)).to(findings.device, torch.bfloat16)
    images = images.contiguous(memory_format=torch.channels_last)
    dynamic = Detector(model, findings.device, torch.bfloat16)(
        images, sizes, score=0.05, max_detections=slots(findings)
    )
    here = torch.tensor(sizes, dtype=torch.float32, device=findings.device)
    found = on_host(static(findings, model, torch.bfloat16)(images, here))
    for ours, theirs in zip(per_picture(found), dynamic, strict=True):
        expect(len(theirs.scores) > 0, "no detections: nothing to compare")
        apart = abs(ours.scores.float().max().item() - theirs.scores.float().max().item())
        expect(apart < 0.05, f"best scores differ by {apart:.3f}")


def _graph(findings: Findings) -> None:
    """Three inputs through one graph, and through the calls themselves."""
    detector = static(findings, network(findings), torch.bfloat16)
    graphed, shape = GraphedDetector(detector, plain_runs=0), (2, *padded(findings))
    images, sizes = graphed.inputs(shape)
    sizes.copy_(torch.tensor(valid_sizes(findings)))
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        images.copy_(torch.randn(images.shape, generator=generator))
        expected = [t.clone() for t in detector(images, sizes)]
        for name, a, b in zip(StaticDetections._fields, graphed.run(shape), expected, strict=True):
            apart = (a.float() - b.float()).abs().max().item()
            expect(torch.equal(a, b), f"input {seed}: {name} of the graph differ by {apart:.1e}")


def _nvjpeg(findings: Findings) -> None:
    """JPEGs of all orientations, a grey one, and one that is no JPEG; then through the pipeline."""
    decoder = GpuDecoder(torch.device("cuda"))
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for i, picture in enumerate(bytes_of([(400, 600)] * 10)):
            exif = Image.Exif()
            exif[0x0112] = i % 8 + 1
            image = Image.fromarray(picture.numpy())
            paths.append(Path(folder, f"{i}.png" if i == 9 else f"{i}.jpg"))
            (image.convert("L") if i == 8 else image).save(paths[-1], exif=exif)
        found = decoder(paths)
        cost = decode_cost(decoder, paths)
    expect((decoder.on_gpu, cost.pictures) == (18, 9), decoder.summary())
    findings.figure("nvjpeg", cost.line())
    expect(cost.mean < 2, cost.line())
    pictures = [f for f in found if isinstance(f, Tensor)]
    flow = pipeline(findings, static(findings, network(findings), torch.bfloat16))
    sizes = [(p.shape[0], p.shape[1]) for p in pictures]
    side = -(-max(map(max, sizes)) // 32) * 32
    results = []
    for batch in (pictures, [p.cpu() for p in pictures]):
        flow.submit(batch, sizes, (side, side))
        results.append(flow.collect().host)
    expect(all(map(torch.equal, *results)), "pictures on the device and on the host differ")


def _no_sync(findings: Findings) -> None:
    """Whatever waits raises; `collect`, which waits for the results, comes after."""
    detector = static(findings, network(findings), torch.bfloat16)
    flow, sizes = pipeline(findings, detector), valid_sizes(findings)
    images = torch.randn(2, 3, *padded(findings), device="cuda")
    here = torch.tensor(sizes, dtype=torch.float32, device="cuda")
    batch = bytes_of(sizes)

    def once() -> None:
        detector(images, here)
        for _ in range(2):
            flow.submit(batch, sizes, padded(findings))

    once()  # compiles, records and allocates, which may wait
    flow.collect(), flow.collect()
    torch.cuda.set_sync_debug_mode("error")
    try:
        once()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expect(bool(flow.collect().host.counts.any()), "nothing was found")
