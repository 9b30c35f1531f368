"""Pictures as bytes in, detections out, batches overlapping: on a GPU as graphs, in the interpreter without."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segcli.models import ARCHITECTURES, Anchors, MaskRCNN, ModelSpec
from segcli.models.inference.graphs import BufferedDetector, GraphedDetector, Shape
from segcli.models.inference.pipelined import Collected, Pipelined
from segcli.models.inference.preprocess_kernel import layout, normalised_values, preprocess
from segcli.models.inference.static import StaticDetections, StaticDetector
from segcli.preprocess import collate, prepare

# the fixture that fills fresh memory asks for determinism, which cuBLAS has by an environment variable only
pytestmark = pytest.mark.filterwarnings("ignore:Deterministic behavior was enabled:UserWarning")

CONVENTIONS = ARCHITECTURES["mask-rcnn-nano"].conventions


@pytest.fixture
def detector(device: str) -> StaticDetector:
    """Random weights that find something; few proposals, which the interpreter can do."""
    torch.manual_seed(1)
    anchors = Anchors(((16,), (32,), (64,), (128,), (256,)))
    network = MaskRCNN(ModelSpec("mask-rcnn-nano", 3, anchors, CONVENTIONS)).eval()
    with torch.no_grad():
        network.roi_heads.box_predictor.cls_score.weight.mul_(40)
    network.rpn._pre_nms_top_n["testing"] = network.rpn._post_nms_top_n["testing"] = 20
    return StaticDetector(network, device, score=0.05, max_detections=10)


def buffered(detector: StaticDetector, shapes: int = 8) -> BufferedDetector:
    """Graphs where there are any."""
    form = GraphedDetector if detector.device.type == "cuda" else BufferedDetector
    return form(detector, shapes=shapes)


def pictures(seed: int, sizes: tuple[tuple[int, int], ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def expected(detector: StaticDetector, images: list[np.ndarray]) -> StaticDetections:
    """The same steps one after another, without graphs and other memory."""
    how, device = CONVENTIONS.preprocess, detector.device
    batch, sizes = collate([prepare(i, how, scale=1.0).tensor for i in images], 32)
    batch = batch.to(device).contiguous(memory_format=torch.channels_last)
    flat = torch.cat([torch.from_numpy(i).reshape(-1) for i in images]).to(device)
    values = normalised_values(how.mean, how.std).to(device)
    preprocess(flat, layout(sizes, sizes).to(device), values, batch)
    found: StaticDetections = detector(
        batch, torch.tensor(sizes, dtype=torch.float32, device=device)
    )
    return StaticDetections(*(t.cpu() for t in found))


def submit(pipeline: Pipelined, images: list[np.ndarray], note: object = None) -> None:
    """At their own size, padded to 32."""
    sizes = [(i.shape[0], i.shape[1]) for i in images]
    height, width = (-(-max(side) // 32) * 32 for side in zip(*sizes, strict=True))
    pipeline.submit([torch.from_numpy(i) for i in images], sizes, (height, width), note)


def pipelined(detector: BufferedDetector, depth: int = 2) -> Pipelined:
    how = CONVENTIONS.preprocess
    return Pipelined(detector, normalised_values(how.mean, how.std), depth=depth)


BATCHES = [((40, 50), (64, 33)), ((60, 64), (20, 20)), ((30, 90),), ((64, 60), (64, 64))]


def test_batches_come_back_in_order(detector: StaticDetector) -> None:
    """Two under way at a time; shapes that come again, whose results are not mixed up; equal to one after another."""
    pipeline = pipelined(buffered(detector))
    batches = [pictures(seed, sizes) for seed, sizes in enumerate(BATCHES)]
    wanted = [expected(detector, images) for images in batches]
    assert all(found.counts.sum() > 0 for found in wanted)
    found: list[Collected] = []
    for images in batches:
        if pipeline.full:
            found.append(pipeline.collect())
        submit(pipeline, images)
    found += [pipeline.collect(), pipeline.collect()]
    for ours, theirs in zip(found, wanted, strict=True):
        for a, b, c in zip(ours.host, theirs, ours.device, strict=True):
            assert torch.equal(a, c.cpu())
            torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


def test_results_stay_where_they_were_found(detector: StaticDetector) -> None:
    """The device's copy is there too, with a stream for what is done with it, and the note comes back."""
    pipeline = pipelined(buffered(detector))
    submit(pipeline, pictures(0, BATCHES[0]), note="a")
    collected = pipeline.collect()
    assert collected.note == "a"
    assert collected.device.boxes.device.type == detector.device.type
    assert collected.host.boxes.device.type == "cpu"
    assert (collected.stream is None) == (detector.device.type == "cpu")


def test_too_many_and_too_few_batches(detector: StaticDetector) -> None:
    """A third one has to wait, and none can be collected that was not submitted."""
    pipeline = pipelined(buffered(detector))
    with pytest.raises(IndexError):
        pipeline.collect()
    for _ in range(2):
        submit(pipeline, pictures(0, BATCHES[2]))
    with pytest.raises(RuntimeError, match="2 batches are under way"):
        submit(pipeline, pictures(0, BATCHES[2]))


def test_a_failure_leaves_the_pipeline_usable(
    detector: StaticDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What went wrong is raised, and the next batch is done."""
    engine = buffered(detector)
    pipeline = pipelined(engine, depth=1)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "run", None)
        with pytest.raises(TypeError):
            submit(pipeline, pictures(0, BATCHES[2]))
    submit(pipeline, pictures(0, BATCHES[2]))
    assert pipeline.collect().host.counts.shape == (1,)


def test_the_least_used_shape_is_forgotten(detector: StaticDetector) -> None:
    """Inputs stay where they are while a shape is kept, and no more shapes are kept than allowed."""
    engine = buffered(detector, shapes=2)
    a, b, c = ((1, 32, w) for w in (32, 64, 96))
    shapes: list[Shape] = [a, b, a, c, a]
    addresses = []
    for shape in shapes:
        engine.run(shape)
        addresses.append(engine.inputs(shape)[0].data_ptr())
    assert addresses[0] == addresses[2] == addresses[4]
    assert list(engine._inputs) == [c, a]


def test_graphs_need_cuda() -> None:
    """A detector on a CPU is refused by name."""
    network = MaskRCNN(ModelSpec("mask-rcnn-nano", 1, Anchors(), CONVENTIONS)).eval()
    with pytest.raises(ValueError, match="expected cuda"):
        GraphedDetector(StaticDetector(network, "cpu", score=0.5, max_detections=1))
