"""The detector against the network it is made of, and against torchvision's own parts."""

from __future__ import annotations

import copy

import pytest
import torch
from torchvision.models.detection import MaskRCNN as StockMaskRCNN
from torchvision.models.detection.image_list import ImageList

from segcli.models import ARCHITECTURES, Anchors, Detections, MaskRCNN, ModelSpec
from segcli.models.conventions import TORCHVISION_V1_COCO
from segcli.models.inference import Detector, Trunk, units
from segcli.models.inference import detector as detector_module
from segcli.preprocess import collate

V1 = ModelSpec("mask-rcnn-r50-fpn", 90, Anchors(), TORCHVISION_V1_COCO)
SIZES = [(120, 176), (128, 99)]


@pytest.fixture(scope="module")
def r50(stock: StockMaskRCNN) -> MaskRCNN:
    """With the weights of `stock`, which find something."""
    network = MaskRCNN(V1).eval()
    network.load_state_dict(stock.state_dict())
    return network


@pytest.fixture(scope="module")
def nano() -> MaskRCNN:
    """Group norms, a stem of two convolutions, basic blocks."""
    torch.manual_seed(0)
    row = ARCHITECTURES["mask-rcnn-nano"]
    network = MaskRCNN(ModelSpec(row.name, 3, Anchors(), row.conventions)).eval()
    with torch.no_grad():
        network.roi_heads.box_predictor.cls_score.weight *= 30
    return network


def _batch(seed: int = 0) -> tuple[torch.Tensor, list[tuple[int, int]]]:
    torch.manual_seed(seed)
    return collate([torch.randn(3, *size) for size in SIZES], 32)


def _match(found: list[Detections], expected: list[Detections]) -> None:
    assert sum(len(e.boxes) for e in expected) > 10
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours.labels, theirs.labels)
        assert (ours.boxes - theirs.boxes).abs().max() <= 1e-2
        assert (ours.scores - theirs.scores).abs().max() <= 2e-4
        assert ours.masks.shape == theirs.masks.shape
        assert (ours.masks - theirs.masks).abs().max() <= 1e-3


@pytest.mark.parametrize("name", ["r50", "nano"])
def test_same_objects_as_the_network(name: str, request: pytest.FixtureRequest) -> None:
    """Two pictures of unlike sizes in one batch; the network itself stays as it was."""
    network: MaskRCNN = request.getfixturevalue(name)
    before = copy.deepcopy(network.state_dict())
    images, sizes = _batch()
    network.set_limits(score=0.1, max_detections=40)
    with torch.inference_mode():
        expected = network(images, sizes)
    detector = Detector(network)
    _match(detector(images, sizes, score=0.1, max_detections=40), expected)
    _match(detector(images, sizes, score=0.1, max_detections=40), expected)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_fewer_are_the_first_of_more(r50: MaskRCNN) -> None:
    """A higher score and a lower limit leave out objects and change none."""
    images, sizes = _batch()
    detector = Detector(r50)
    everything = detector(images, sizes, score=0.05, max_detections=100)
    few = detector(images, sizes, score=0.05, max_detections=3)
    sure = detector(images, sizes, score=0.3, max_detections=100)
    for whole, first, best in zip(everything, few, sure, strict=True):
        assert len(first.boxes) == 3
        assert torch.equal(first.boxes, whole.boxes[:3])
        kept = whole.scores > 0.3
        assert 0 < len(best.boxes) <= int(kept.sum())
        assert torch.allclose(best.scores, whole.scores[: len(best.scores)])


def test_nothing_found_is_nothing(r50: MaskRCNN) -> None:
    """No box reaches the score: empty results of the right shapes."""
    images, sizes = _batch()
    for found in Detector(r50)(images, sizes, score=1.0, max_detections=100):
        assert found.boxes.shape == (0, 4)
        assert found.scores.shape == (0,)
        assert found.labels.shape == (0,)
        assert found.masks.shape == (0, 28, 28)


def test_features_logits_and_deltas(r50: MaskRCNN) -> None:
    """Each output of the trunk, plain and packed, to 2e-5 of its largest value."""
    images, _ = _batch()
    with torch.inference_mode():
        features = r50.backbone(images)
        logits, deltas = r50.rpn.head(list(features.values()))
        expected = [*list(features.values())[:4], *logits, *deltas]
        plain = Trunk(r50).eval()(images)
        packed = Detector(r50).run_trunk(images)
    for outputs in (plain, (*packed.features, *packed.logits, *packed.deltas)):
        assert len(outputs) == len(expected)
        for ours, theirs in zip(outputs, expected, strict=True):
            assert (ours - theirs).abs().max() <= 2e-5 * theirs.abs().max()


def test_proposals_are_torchvisions(r50: MaskRCNN) -> None:
    """Given its logits and deltas: the same boxes in the same order, to the bit."""
    images, sizes = _batch()
    detector = Detector(r50)
    with torch.inference_mode():
        found = detector.run_trunk(images)
        proposals = detector.propose(found, (images.shape[2], images.shape[3]), sizes)
        rpn = copy.deepcopy(r50.rpn)
        rpn.head.forward = lambda _: (found.logits, found.deltas)
        features = {str(i): level for i, level in enumerate(found.logits)}
        expected, _ = rpn(ImageList(images, sizes), features)
    for ours, theirs in zip(proposals, expected, strict=True):
        assert torch.equal(ours, theirs)


def test_boxes_are_torchvisions(r50: MaskRCNN) -> None:
    """Given the same logits and deltas, the selection equals `postprocess_detections`."""
    torch.manual_seed(1)
    heads = r50.roi_heads
    logits, deltas = torch.randn(300, 91) * 4, torch.randn(300, 364)
    corner = torch.rand(300, 2) * 80
    proposals = torch.cat((corner, corner + torch.rand(300, 2) * 60), 1)
    detector = Detector(r50)
    heads.score_thresh, heads.detections_per_img = 0.02, 70
    expected = heads.postprocess_detections(logits, deltas, [proposals], [(100, 130)])
    found = detector._select(logits, deltas, proposals, (100, 130), score=0.02, most=70)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs[0])


def test_masks_of_more_objects_than_fit_at_once(nano: MaskRCNN) -> None:
    """Taken in pieces, in order."""
    images, sizes = _batch()
    detector = Detector(nano)
    found = detector.run_trunk(images)
    boxes = [torch.tensor([[5.0, 5, 60, 50]]).repeat(n, 1) for n in (200, 3)]
    boxes[0][150] = torch.tensor([40.0, 40, 100, 90])
    labels = [torch.full((n,), 2) for n in (200, 3)]
    many = detector.masks(found, boxes, labels)
    one = detector.masks(found, [boxes[0][150:151], boxes[1][:0]], [labels[0][:1], labels[1][:0]])
    assert [m.shape for m in many] == [(200, 28, 28), (3, 28, 28)]
    assert torch.allclose(many[0][150], one[0][0], atol=1e-6)
    assert torch.allclose(many[0][0], many[0][199], atol=1e-6)
    assert one[1].shape == (0, 28, 28)
    del sizes


@pytest.mark.parametrize("backend", ["gather", "torchvision"])
def test_bfloat16(nano: MaskRCNN, backend: str) -> None:
    """Runs with either RoIAlign, boxes in float32, and finds about the same scores."""
    network = MaskRCNN(nano.spec, backend).eval()
    network.load_state_dict(nano.state_dict())
    images, sizes = _batch()
    exact = Detector(network)(images, sizes, score=0.1, max_detections=20)
    found = Detector(network, dtype=torch.bfloat16)(images, sizes, score=0.1, max_detections=20)
    for ours, theirs in zip(found, exact, strict=True):
        assert ours.boxes.dtype == ours.scores.dtype == ours.masks.dtype == torch.float32
        assert len(ours.boxes)
        assert abs(float(ours.scores[0] - theirs.scores[0])) < 0.05


def test_bfloat16_on_a_processor_without_it(
    nano: MaskRCNN, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There oneDNN's fused convolutions refuse bfloat16; plain torch runs."""
    images, sizes = _batch()
    expected = Detector(nano, dtype=torch.bfloat16)(images, sizes, score=0.1, max_detections=5)
    monkeypatch.setattr(units, "pack", _never)
    monkeypatch.setattr(detector_module, "pack", _never)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    found = Detector(nano, dtype=torch.bfloat16)(images, sizes, score=0.1, max_detections=5)
    for ours, theirs in zip(found, expected, strict=True):
        assert abs(float(ours.scores[0] - theirs.scores[0])) < 0.05


def _never(_: object) -> None:
    pytest.fail("packed")


def test_another_engine_takes_the_trunks_place(r50: MaskRCNN) -> None:
    """It is given pictures and decides what is found."""
    images, sizes = _batch()
    detector = Detector(r50)
    seen = []
    inner = detector.trunk

    def engine(pictures: torch.Tensor) -> object:
        seen.append(pictures.shape)
        return inner(pictures)

    detector.trunk = engine  # type: ignore[assignment]
    detector(images, sizes, score=0.1, max_detections=5)
    assert seen == [images.shape]
