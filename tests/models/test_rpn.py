"""Anchors, ranking and choice of proposals, on inputs made so that each family's choice shows."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from segcli.models import ARCHITECTURES, Anchors, MaskRCNN, ModelSpec
from segcli.models.conventions import Numerics
from segcli.models.inference import Detector, TrunkOutput
from segcli.models.presets import PRESETS
from segcli.models.rpn import PyramidAnchors, best_anchors, cell_anchors, select_proposals

TORCHVISION = PRESETS["torchvision-v1"].numerics
DETECTRON2 = PRESETS["detectron2-r50"].numerics
MMDETECTION = PRESETS["mmdetection-pytorch"].numerics
CPU = torch.device("cpu")


def _shapes(height: int, width: int) -> list[tuple[int, int]]:
    """Of P2 … P6."""
    shapes = [(height // s, width // s) for s in (4, 8, 16, 32)]
    return [*shapes, (-(-shapes[-1][0] // 2), -(-shapes[-1][1] // 2))]


@pytest.mark.parametrize("padded", [(800, 1088), (608, 800), (64, 32), (1344, 1344)])
def test_torchvisions_anchors_are_torchvisions(padded: tuple[int, int]) -> None:
    """Rounded, strides inferred; two sizes per level too."""
    for sizes in (Anchors().sizes, ((16, 24),) * 5):
        anchors = Anchors(sizes, (0.5, 1.0, 2.0))
        stock = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5)
        levels = [torch.zeros(1, 1, *shape) for shape in _shapes(*padded)]
        images = ImageList(torch.zeros(1, 1, *padded), [padded])
        ours = PyramidAnchors(anchors, TORCHVISION)
        assert torch.equal(ours(images, levels)[0], stock(images, levels)[0])


def _written_out(padded: tuple[int, int], offset: float = 0.0) -> list[tuple[float, ...]]:
    """detectron2's anchors, cell by cell in Python's floats (anchor_generator.py)."""
    boxes = []
    for level, (h, w) in enumerate(_shapes(*padded)):
        stride, area = 4 * 2**level, float(32 * 2**level) ** 2
        for y in range(h):
            for x in range(w):
                for ratio in (0.5, 1.0, 2.0):
                    width = math.sqrt(area / ratio)
                    height = ratio * width
                    cx, cy = (x + offset) * stride, (y + offset) * stride
                    boxes.append((cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2))
    return boxes


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_detectron2s_and_mmdetections_anchors(offset: float) -> None:
    """Not rounded, strides 4 … 64, an offset where the configuration has one."""
    padded = (96, 160)
    for numerics in (DETECTRON2, MMDETECTION):
        found = torch.cat(
            PyramidAnchors(Anchors(), replace(numerics, anchor_offset=offset)).per_level(
                padded, _shapes(*padded), CPU
            )
        )
        expected = torch.tensor(_written_out(padded, offset), dtype=torch.float64)
        assert (found - expected).abs().max() <= 3e-5


def test_p6_of_800_pixels_has_a_stride_of_61_in_torchvision_only() -> None:
    """800 // 13."""
    for numerics, stride in ((TORCHVISION, 61), (DETECTRON2, 64), (MMDETECTION, 64)):
        anchors = PyramidAnchors(Anchors(), numerics)
        p6 = anchors.per_level((800, 1088), _shapes(800, 1088), CPU)[4].view(13, 17, 3, 4)
        assert (p6[1, 0, 0, 1] - p6[0, 0, 0, 1]).item() == stride


def test_anchors_are_kept_for_the_last_sizes() -> None:
    """Those of an evaluation can be trained with; a folder of many sizes does not fill the memory."""
    anchors = PyramidAnchors(Anchors(), TORCHVISION)

    def of(width: int) -> list[torch.Tensor]:
        levels = [torch.zeros(1, 1, *shape) for shape in _shapes(64, width)]
        return anchors.kept_per_level((64, width), levels)

    with torch.inference_mode():
        first = of(64)
    assert of(64) is first
    assert not first[0].is_inference()
    assert all(map(torch.equal, first, anchors.per_level((64, 64), _shapes(64, 64), CPU)))
    for width in range(96, 96 + 40 * 32, 32):
        assert all(
            map(torch.equal, of(width), anchors.per_level((64, width), _shapes(64, width), CPU))
        )
    assert len(anchors._kept) == 16
    assert of(64) is not first


def test_cells_do_not_follow_torchs_default_device() -> None:
    """A network that is built without memory, to be filled later, has its anchors all the same."""
    with torch.device("meta"):
        assert cell_anchors((32,), (1.0,), rounded=True).tolist() == [[-16.0, -16.0, 16.0, 16.0]]


def test_saturated_logits_tie_where_sigmoids_are_ranked() -> None:
    """fp32's sigmoid is 1 from 17 on: mmdetection then takes the first, the others the largest logit."""
    logits = torch.tensor([18.0, 5.0, 20.0, 19.0])
    scores, rows = best_anchors(logits, 2, MMDETECTION)
    assert (scores.tolist(), rows.tolist()) == ([1.0, 1.0], [0, 2])
    scores, rows = best_anchors(logits, 2, DETECTRON2)
    assert (scores.tolist(), rows.tolist()) == ([20.0, 19.0], [2, 3])
    scores, rows = best_anchors(logits, 2, TORCHVISION)
    assert (scores.tolist(), rows.tolist()) == ([1.0, 1.0], [2, 3])


@pytest.mark.parametrize("numerics", [TORCHVISION, DETECTRON2, MMDETECTION])
def test_fewer_anchors_than_asked_for(numerics: Numerics) -> None:
    """A level of a small picture has few; one of none gives none."""
    assert len(best_anchors(torch.randn(3), 1000, numerics)[1]) == 3
    assert len(best_anchors(torch.zeros(0), 1000, numerics)[1]) == 0


def _choose(
    boxes: list[list[float]], numerics: Numerics, scores: Tensor | None = None
) -> list[list[float]]:
    rows = torch.tensor(boxes).view(-1, 4)
    scores = torch.linspace(1, 0.5, len(rows)) if scores is None else scores
    found, _ = select_proposals(
        rows, scores, torch.zeros(len(rows), dtype=torch.int64), (100, 100), numerics,
        overlap=0.7, most=10,
    )  # fmt: skip
    return found.tolist()


def test_tiny_proposals() -> None:
    """Torchvision keeps 1e-3 pixels and more, the others everything that has an extent."""
    limit = torch.tensor(1e-3).item()
    tiny = [[0.0, 0.0, limit / 2, 1.0], [0.0, 5.0, limit, 6.0], [0.0, 9.0, 0.0, 10.0]]
    assert [b[1] for b in _choose(tiny, TORCHVISION)] == [5.0]
    for numerics in (DETECTRON2, MMDETECTION):
        assert [b[1] for b in _choose(tiny, numerics)] == [0.0, 5.0]


def test_boxes_outside_are_clipped_first_and_then_too_small() -> None:
    """What lies beyond the valid area has no extent in it."""
    outside = [[100.0, 10.0, 300.0, 20.0], [90.0, 10.0, 300.0, 20.0]]
    for numerics in (TORCHVISION, DETECTRON2, MMDETECTION):
        assert _choose(outside, numerics) == [[90.0, 10.0, 100.0, 20.0]]


def test_infinite_boxes_go_in_detectron2_and_are_clipped_elsewhere() -> None:
    """NaN goes in all."""
    wild = [[0.0, 0.0, float("inf"), 50.0], [float("nan"), 0.0, 5.0, 5.0]]
    assert _choose(wild, DETECTRON2) == []
    for numerics in (TORCHVISION, MMDETECTION):
        assert _choose(wild, numerics) == [[0.0, 0.0, 100.0, 50.0]]


def test_a_score_that_is_not_finite_goes_in_detectron2() -> None:
    """Its check covers scores too."""
    boxes = [[0.0, 0.0, 9.0, 9.0], [20.0, 0.0, 29.0, 9.0]]
    assert len(_choose(boxes, DETECTRON2, torch.tensor([float("inf"), 0.5]))) == 1


def test_no_proposals_at_all() -> None:
    """An empty set stays one."""
    for numerics in (TORCHVISION, DETECTRON2, MMDETECTION):
        assert _choose([], numerics) == []


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_the_network_and_the_detector_propose_the_same(name: str) -> None:
    """One decodes all anchors, the other the best only; saturated logits among them."""
    torch.manual_seed(0)
    row = ARCHITECTURES["mask-rcnn-nano"]
    network = MaskRCNN(ModelSpec(row.name, 2, Anchors(), PRESETS[name])).eval()
    shapes, sizes = _shapes(96, 128), [(96, 128), (90, 101)]
    logits = [torch.randn(2, 3, *shape).mul_(12) for shape in shapes]
    deltas = [torch.randn(2, 12, *shape).mul_(0.3) for shape in shapes]
    network.rpn.head.forward = lambda _: (logits, deltas)
    features = {str(i): torch.zeros(2, 1, *shape) for i, shape in enumerate(shapes)}
    with torch.inference_mode():
        expected, _ = network.rpn(ImageList(torch.zeros(2, 3, 96, 128), sizes), features)
    found = Detector(network).propose(TrunkOutput([], logits, deltas), (96, 128), sizes)
    for ours, theirs in zip(found, expected, strict=True):
        assert len(ours) > 20
        assert torch.equal(ours, theirs)


def test_counts_in_training_are_the_familys() -> None:
    """Torchvision keeps 2000 proposals in training, the others 1000; before NMS all take 2000 per level."""
    row = ARCHITECTURES["mask-rcnn-r18-fpn"]
    for name, after in (
        ("torchvision-v1", 2000),
        ("detectron2-r50", 1000),
        ("mmdetection-caffe", 1000),
    ):
        rpn = MaskRCNN(ModelSpec(row.name, 2, Anchors(), PRESETS[name])).train().rpn
        assert (rpn.pre_nms_top_n(), rpn.post_nms_top_n()) == (2000, after)
        rpn.eval()
        assert (rpn.pre_nms_top_n(), rpn.post_nms_top_n()) == (1000, 1000)
