"""The network against torchvision's own, and against the recorded outputs of its real code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.models.detection import MaskRCNN as StockMaskRCNN

from segcli.config import PredictConfig
from segcli.device import resolve
from segcli.images import read_image
from segcli.masks import Masks
from segcli.models import ARCHITECTURES, Anchors, Conventions, MaskRCNN, ModelSpec
from segcli.models.conventions import TORCHVISION_V1_COCO
from segcli.prediction.predictor import Predictor
from segcli.preprocess import collate, prepare
from segcli.zoo import COCO_91

V1 = ModelSpec("mask-rcnn-r50-fpn", 90, Anchors(), TORCHVISION_V1_COCO)


def _picture(height: int, width: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8)
    return np.repeat(np.repeat(coarse, 16, 0), 16, 1)[:height, :width].copy()


def _ours(state: dict[str, Tensor], backend: str = "auto", **settings: int | float) -> Predictor:
    network = MaskRCNN(V1, backend)
    network.load_state_dict(state)
    config = PredictConfig(**settings)  # type: ignore[arg-type]
    return Predictor(network, COCO_91, resolve("cpu", "fp32"), config=config)


def test_state_dict_names_are_torchvisions(stock: StockMaskRCNN) -> None:
    """Its state dict loads strict, nothing missing and nothing over."""
    MaskRCNN(V1).load_state_dict(stock.state_dict(), strict=True)


def test_old_names_load_too(stock: StockMaskRCNN) -> None:
    """The published v1 file has the names of before 2022, without version records."""
    old = {}
    for name, value in stock.state_dict().items():
        name = name.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        for block in ("inner_blocks", "layer_blocks"):
            for k in range(4):
                name = name.replace(f"fpn.{block}.{k}.0.", f"fpn.{block}.{k}.")
        for k in range(4):
            name = name.replace(f"mask_head.{k}.0.", f"mask_head.mask_fcn{k + 1}.")
        old[name] = value
    network = MaskRCNN(V1)
    network.load_state_dict(old, strict=True)
    assert torch.equal(network.rpn.head.conv[0][0].weight, stock.rpn.head.conv[0][0].weight)


def test_outputs_equal_torchvisions_bit_for_bit(stock: StockMaskRCNN) -> None:
    """Two pictures of different size in one batch: boxes, scores, labels and masks."""
    pictures = [_picture(120, 200, 1), _picture(180, 130, 2)]
    stock.transform.min_size, stock.transform.max_size = (160,), 256
    tensors = [torch.from_numpy(p.transpose(2, 0, 1).copy()).float() / 255 for p in pictures]
    with torch.inference_mode():
        expected = stock(tensors)
    predictor = _ours(stock.state_dict(), "torchvision", min_size=160, max_size=256)
    prepared = [predictor.prepare(p) for p in pictures]
    network = MaskRCNN(V1, "torchvision").eval()
    network.load_state_dict(stock.state_dict())
    network.set_limits(score=0.05, max_detections=100)
    batch, sizes = collate([p.tensor for p in prepared], 32)
    with torch.inference_mode():
        detections = network(batch, sizes)
    found = [
        predictor.instances(d, size, p.original_size)
        for d, size, p in zip(detections, sizes, prepared, strict=True)
    ]
    assert sum(len(e["boxes"]) for e in expected) > 20
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.scores is not None
        assert ours.masks is not None
        assert np.array_equal(ours.boxes, theirs["boxes"].numpy())
        assert np.array_equal(ours.scores, theirs["scores"].numpy())
        assert np.array_equal(ours.labels + 1, theirs["labels"].numpy())
        dense = (theirs["masks"][:, 0] > 0.5).numpy()
        assert np.array_equal(np.stack([ours.masks.full(i) for i in range(len(ours))]), dense)


def test_outputs_of_the_gather_are_equal_outputs(stock: StockMaskRCNN) -> None:
    """Our own RoIAlign sums in another order: same detections, and differences within the design's tolerances."""
    pictures = [_picture(120, 200, 1), _picture(180, 130, 2)]
    found = []
    for backend in ("torchvision", "gather"):
        predictor = _ours(stock.state_dict(), backend, min_size=160, max_size=256)
        found.append(predictor.predict([predictor.prepare(p) for p in pictures]))
    for theirs, ours in zip(*found, strict=True):
        assert len(ours) == len(theirs) > 5
        assert ours.masks is not None
        assert theirs.masks is not None
        assert np.array_equal(ours.labels, theirs.labels)
        assert np.abs(ours.boxes - theirs.boxes).max() <= 1e-2
        assert np.abs(np.subtract(ours.scores, theirs.scores)).max() <= 2e-4
        for i in range(len(ours)):
            assert (ours.masks.full(i) != theirs.masks.full(i)).sum() <= 10


def test_a_wrong_eps_shows(stock: StockMaskRCNN) -> None:
    """Eps 0 belongs to the v1 weights; with 1e-5 the features differ, so the convention is really applied."""
    tensor = prepare(_picture(96, 96, 3), TORCHVISION_V1_COCO.preprocess, scale=1.0).tensor[None]
    right, wrong = MaskRCNN(V1), MaskRCNN(ModelSpec(V1.architecture, 90, Anchors(), Conventions()))
    for network in (right, wrong):
        network.load_state_dict(stock.state_dict())
    with torch.inference_mode():
        expected = stock.backbone(tensor)["3"]
        assert torch.equal(right.backbone(tensor)["3"], expected)
        assert not torch.equal(wrong.backbone(tensor)["3"], expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a_640x480", "b_427x640", "c_500x333"])
def test_recorded_outputs_of_torchvision(
    name: str,
    shared: Callable[[str], Path],
    fixture_weights: Callable[[str], dict[str, Tensor]],
) -> None:
    """Final boxes, scores, labels and masks of `maskrcnn_resnet50_fpn` on real photos, within the stated tolerances."""
    config = "tv_maskrcnn_resnet50_fpn"
    record = np.load(shared(f"fixtures/{config}/{name}.npz"))
    image = read_image(shared(f"fixtures/images/{name}.jpg"))
    predictor = _ours(fixture_weights(config))
    found = predictor.predict([predictor.prepare(image)])[0]
    assert found.scores is not None
    assert found.masks is not None
    assert len(found) == len(record["boxes"])
    assert np.abs(found.boxes - record["boxes"]).max() <= 1e-2
    assert np.abs(found.scores - record["scores"]).max() <= 2e-4
    assert np.array_equal(found.labels + 1, record["labels"])
    rle = json.loads(str(record["meta"]))["rle"]
    for i, truth in enumerate(Masks.from_coco([r], found.image_size) for r in rle):
        assert (found.masks.full(i) != truth.full(0)).sum() <= 10


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_training_gives_five_finite_losses_and_gradients(architecture: str) -> None:
    """With a picture that holds objects beside one that holds none."""
    torch.manual_seed(0)
    row = ARCHITECTURES[architecture]
    network = MaskRCNN(ModelSpec(architecture, 3, Anchors(), row.conventions)).train()
    images, sizes = collate([torch.randn(3, 96, 128), torch.randn(3, 64, 64)], 32)
    patches = torch.full((2, 58, 58), 255, dtype=torch.uint8)
    objects = {
        "boxes": torch.tensor([[10.0, 10, 60, 70], [50, 20, 120, 90]]),
        "labels": torch.tensor([1, 3]),
        "masks": patches,
    }
    nothing = {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0, dtype=torch.int64),
        "masks": patches[:0],
    }
    losses = network(images, sizes, [objects, nothing])
    assert isinstance(losses, dict)
    assert sorted(losses) == [
        "loss_box_reg", "loss_classifier", "loss_mask", "loss_objectness", "loss_rpn_box_reg",
    ]  # fmt: skip
    total = torch.stack(list(losses.values())).sum()
    assert torch.isfinite(total)
    total.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


def test_a_batch_without_any_object_trains() -> None:
    """All losses stay finite where there is nothing to find, and the mask loss is zero."""
    torch.manual_seed(0)
    row = ARCHITECTURES["mask-rcnn-nano"]
    network = MaskRCNN(ModelSpec(row.name, 1, Anchors(), row.conventions)).train()
    nothing = {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0, dtype=torch.int64),
        "masks": torch.zeros(0, 58, 58, dtype=torch.uint8),
    }
    losses = network(torch.randn(2, 3, 64, 64), [(64, 64), (60, 50)], [nothing, nothing])
    assert isinstance(losses, dict)
    assert losses["loss_mask"].item() == 0.0
    assert all(torch.isfinite(loss) for loss in losses.values())


def test_bf16_keeps_boxes_in_float32() -> None:
    """Under autocast coordinates have more than bfloat16's eight bits."""
    torch.manual_seed(0)
    row = ARCHITECTURES["mask-rcnn-nano"]
    network = MaskRCNN(ModelSpec(row.name, 2, Anchors(), row.conventions)).eval()
    network.set_limits(score=0.0, max_detections=50)
    with torch.inference_mode(), resolve("cpu", "bf16").autocast():
        found = network(torch.randn(1, 3, 256, 256), [(256, 256)])
    assert isinstance(found, list)
    boxes = found[0].boxes
    assert boxes.dtype == torch.float32
    assert len(boxes)
    assert not torch.equal(boxes, boxes.bfloat16().float())


def test_nano_fits_in_twelve_megabytes_of_bf16() -> None:
    """The light network stays light."""
    row = ARCHITECTURES["mask-rcnn-nano"]
    network = MaskRCNN(ModelSpec(row.name, 80, Anchors(), row.conventions))
    assert sum(p.numel() for p in network.parameters()) * 2 < 12e6
