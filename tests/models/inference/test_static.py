"""The detector of fixed shapes against torchvision's own arithmetic, and that its shapes are fixed."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models.detection import MaskRCNN as StockMaskRCNN
from torchvision.models.detection._utils import BoxCoder

from segcli.models import ARCHITECTURES, Anchors, Detections, MaskRCNN, ModelSpec
from segcli.models.conventions import TORCHVISION_V1_COCO
from segcli.models.inference.detector import Detector
from segcli.models.inference.static import StaticDetections, StaticDetector, on_host, per_picture

SIZES = [(90, 150), (128, 101)]
PADDED = (128, 160)


@cache
def nano(classes: int = 3, spread: float = 40.0) -> MaskRCNN:
    """Random weights that find something: classes are spread. Few proposals, so that tests are fast."""
    torch.manual_seed(1)
    anchors = Anchors(((16,), (32,), (64,), (128,), (256,)))
    spec = ModelSpec(
        "mask-rcnn-nano", classes, anchors, ARCHITECTURES["mask-rcnn-nano"].conventions
    )
    network = MaskRCNN(spec).eval()
    with torch.no_grad():
        network.roi_heads.box_predictor.cls_score.weight.mul_(spread)
        network.rpn.head.cls_logits.weight.mul_(20)
    network.rpn._pre_nms_top_n = {"training": 100, "testing": 100}
    network.rpn._post_nms_top_n = {"training": 150, "testing": 150}
    return network


def pictures(seed: int = 0) -> Tensor:
    """Two of different valid sizes, zero-padded to one batch."""
    generator = torch.Generator().manual_seed(seed)
    batch = torch.zeros(2, 3, *PADDED)
    for row, (h, w) in zip(batch, SIZES, strict=True):
        coarse = torch.randn(3, h // 8 + 1, w // 8 + 1, generator=generator)
        row[:, :h, :w] = coarse.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :h, :w]
    return batch


def static(
    network: MaskRCNN, images: Tensor, sizes: list[tuple[int, int]] = SIZES, **settings: float
) -> StaticDetections:
    """Run in fixed shapes on the CPU."""
    detector = StaticDetector(network, "cpu", **settings)  # type: ignore[arg-type]
    found: StaticDetections = detector(images, torch.tensor(sizes, dtype=torch.float32))
    return on_host(found)


def by_torchvision(network: MaskRCNN, images: Tensor, score: float, most: int) -> list[Detections]:
    """The network's own forward pass: torchvision's RPN and heads."""
    network.set_limits(score=score, max_detections=most)
    with torch.inference_mode():
        found = network(images, SIZES)
    assert isinstance(found, list)
    return found


def assert_equal_outputs(found: list[Detections], expected: list[Detections]) -> None:
    """The design's rule, without its allowance for one that is unmatched."""
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.labels.tolist() == theirs.labels.tolist()
        torch.testing.assert_close(ours.boxes, theirs.boxes, atol=1e-2, rtol=0)
        torch.testing.assert_close(ours.scores, theirs.scores, atol=2e-4, rtol=0)
        torch.testing.assert_close(ours.masks, theirs.masks, atol=1e-3, rtol=0)


@pytest.mark.parametrize("most", [1, 7, 100])
@pytest.mark.parametrize("score", [0.0, 0.05, 0.5])
def test_nano_equals_torchvision(score: float, most: int) -> None:
    """More detections than slots, fewer, and with a score of 0; two pictures of different size in a batch."""
    network = nano()
    expected = by_torchvision(network, pictures(), score, most)
    found = static(network, pictures(), score=score, max_detections=most)
    assert sum(len(e.boxes) for e in expected) >= 2
    assert_equal_outputs(per_picture(found), expected)
    assert not found.short.any()


def test_r50_equals_torchvision(stock: StockMaskRCNN) -> None:
    """ResNet-50, 90 classes."""
    network = MaskRCNN(ModelSpec("mask-rcnn-r50-fpn", 90, Anchors(), TORCHVISION_V1_COCO)).eval()
    network.load_state_dict(stock.state_dict())
    network.rpn._pre_nms_top_n["testing"] = 300  # so that the test is fast
    expected = by_torchvision(network, pictures(), 0.05, 100)
    found = static(network, pictures(), score=0.05, max_detections=100)
    assert min(len(e.boxes) for e in expected) > 5
    assert_equal_outputs(per_picture(found), expected)


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_detector_of_changing_shapes(seed: int) -> None:
    """Which removes overlapping boxes exactly as this one does, so that all pictures agree."""
    network = nano(classes=9)
    expected = Detector(network)(pictures(seed), SIZES, score=0.05, max_detections=50)
    found = static(network, pictures(seed), score=0.05, max_detections=50)
    assert sum(len(e.boxes) for e in expected) > 5
    assert_equal_outputs(per_picture(found), expected)


def test_nothing_found() -> None:
    """No score passes: no rows, and empty slots are marked."""
    found = static(nano(), pictures(), score=1.0, max_detections=5)
    assert found.counts.tolist() == [0, 0]
    assert (found.scores == -1).all()
    assert (found.labels == -1).all()
    assert [len(d.boxes) for d in per_picture(found)] == [0, 0]
    assert found.masks.shape == (2, 5, 28, 28)


def test_a_picture_does_not_depend_on_its_batch() -> None:
    """The second picture alone gives what it gives beside the first."""
    both = static(nano(), pictures(), score=0.05, max_detections=30)
    alone = static(nano(), pictures()[1:], SIZES[1:], score=0.05, max_detections=30)
    assert_equal_outputs(per_picture(alone), per_picture(both)[1:])


def test_few_candidates_that_fill_all_slots_are_exact() -> None:
    """With far fewer candidates than pass the threshold, the best detections are the same."""
    network = nano()
    expected = by_torchvision(network, pictures(), 0.0, 5)
    found = static(network, pictures(), score=0.0, max_detections=5, candidates=60)
    assert not found.short.any()
    assert_equal_outputs(per_picture(found), expected)


def test_too_few_candidates_are_said() -> None:
    """Where candidates were left out and slots remain, the picture is marked; what is there is right."""
    network = nano()
    expected = by_torchvision(network, pictures(), 0.0, 100)
    found = static(network, pictures(), score=0.0, max_detections=100, candidates=1)
    assert found.short.all()
    for ours, theirs in zip(per_picture(found), expected, strict=True):
        count = len(ours.boxes)
        assert 0 < count < len(theirs.boxes)
        assert torch.equal(ours.labels, theirs.labels[:count])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_nothing_looks_into_a_tensor(dtype: torch.dtype) -> None:
    """All of it runs on tensors without values: a look at one, which waits for the device on a GPU, fails there."""
    detector = StaticDetector(nano(), "cpu", dtype, score=0.05, max_detections=20)
    with FakeTensorMode(allow_non_fake_inputs=True):
        found = detector(torch.empty(2, 3, *PADDED), torch.empty(2, 2))
    assert [tuple(t.shape) for t in found] == [
        (2, 20, 4), (2, 20), (2, 20), (2, 20, 28, 28), (2,), (2,),
    ]  # fmt: skip


class NoHostToDevice(TorchDispatchMode):
    """Fails where a tensor is made of Python's numbers: on a GPU that is a copy which waits, and ends a recording."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        assert func is not torch.ops.aten.lift_fresh.default, "a tensor of Python's numbers"
        return func(*args, **(kwargs or {}))


def test_no_tensor_is_made_of_numbers() -> None:
    """As torchvision's own box coder makes one for every call; that the check finds it is checked too."""
    coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
    with pytest.raises(AssertionError, match="Python's numbers"), NoHostToDevice():
        coder.decode_single(torch.zeros(1, 4), torch.zeros(1, 4))
    detector = StaticDetector(nano(), "cpu", score=0.05, max_detections=20)
    sizes = torch.tensor(SIZES, dtype=torch.float32)
    detector(pictures(), sizes)  # what is kept from call to call
    images = pictures()
    with NoHostToDevice():
        detector(images, sizes)


def test_bf16_is_near() -> None:
    """Most detections of fp32 are found in bf16 too, at nearly their score; results are float32."""
    network = nano(spread=8.0)
    exact, rough = (
        static(network, pictures(), score=0.05, max_detections=20, dtype=dtype)
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert rough.boxes.dtype == rough.masks.dtype == torch.float32
    assert exact.counts.min() > 3
    best = (exact.scores[:, 0] - rough.scores[:, 0]).abs()
    assert best.max() < 0.1


def test_a_tiny_picture() -> None:
    """Fewer anchors than slots for proposals; one pixel is valid."""
    network = nano()
    images = torch.zeros(1, 3, 32, 32)
    images[:, :, 0, 0] = 1.0
    network.set_limits(score=0.05, max_detections=10)
    with torch.inference_mode():
        expected = network(images, [(1, 1)])
    found = static(network, images, [(1, 1)], score=0.05, max_detections=10)
    assert_equal_outputs(per_picture(found), expected)


def test_proposals_are_the_same_bits() -> None:
    """From one trunk's output, as the detector of changing shapes makes them; the slots behind them are empty."""
    other = Detector(nano())
    found = other.run_trunk(pictures())
    expected = other.propose(found, PADDED, SIZES)
    detector = StaticDetector(nano(), "cpu", score=0.05, max_detections=10)
    boxes, valid = detector.propose(found, PADDED, torch.tensor(SIZES, dtype=torch.float32))
    assert boxes.shape == (2, 150, 4)
    for row, used, theirs in zip(boxes, valid, expected, strict=True):
        assert torch.equal(row[used], theirs)
        assert used.tolist() == sorted(used.tolist(), reverse=True)
