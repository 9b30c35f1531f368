"""The losses against torchvision's own Mask R-CNN, and what they promise besides."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models.detection import MaskRCNN as StockMaskRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import project_masks_on_boxes

from segcli.models import Anchors, MaskRCNN, ModelSpec
from segcli.models.conventions import TORCHVISION_V1_COCO
from segcli.models.training import losses
from segcli.models.training.loss_sums import LOSSES
from segcli.models.training.losses import training_losses
from segcli.models.training.prepare import prepare_for_training

Make = Callable[..., MaskRCNN]
MakeObjects = Callable[[list[list[float]], list[int]], dict[str, Tensor]]
_EVERYTHING = 10**6


def _few(rpn: Any, heads: Any) -> None:
    """Few proposals, and all anchors and RoIs in the sample, so that chance has no part."""
    rpn._pre_nms_top_n = rpn._post_nms_top_n = {"training": 60, "testing": 60}
    rpn.fg_bg_sampler.batch_size_per_image = _EVERYTHING
    heads.fg_bg_sampler.batch_size_per_image = _EVERYTHING


@pytest.fixture
def both(stock: StockMaskRCNN) -> tuple[StockMaskRCNN, MaskRCNN]:
    """Torchvision's network and ours with the same random weights, in training."""
    theirs = deepcopy(stock).train()
    numerics = replace(TORCHVISION_V1_COCO.numerics, nms_mode="by_size")
    conventions = replace(TORCHVISION_V1_COCO, numerics=numerics)
    ours = MaskRCNN(ModelSpec("mask-rcnn-r50-fpn", 90, Anchors(), conventions)).train()
    for name, tensor in theirs.state_dict().items():
        if name.endswith("bn3.weight"):
            tensor.mul_(0.2)  # so that random layers do not add up to huge numbers
        if name == "roi_heads.box_predictor.cls_score.weight":
            tensor.mul_(1 / 40)
    ours.load_state_dict(theirs.state_dict())
    for network in (theirs, ours):
        _few(network.rpn, network.roi_heads)
        for name, parameter in network.backbone.body.named_parameters():
            parameter.requires_grad_(not name.startswith(("conv1", "bn1", "layer1")))
    return theirs, ours


def _dense(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Full-size masks of ellipses, uint8 (G, H, W)."""
    y, x = torch.meshgrid(*(torch.arange(s) + 0.5 for s in size), indexing="ij")
    masks = []
    for x1, y1, x2, y2 in boxes.tolist():
        inside = ((2 * x - x1 - x2) / (x2 - x1)) ** 2 + ((2 * y - y1 - y2) / (y2 - y1)) ** 2 <= 1
        masks.append(inside.to(torch.uint8))
    return torch.stack(masks) if masks else torch.zeros(0, *size, dtype=torch.uint8)


def _stock_losses(network: Any, batch: Any, masks: list[Tensor]) -> dict[str, Tensor]:
    targets = [{**t, "masks": m} for t, m in zip(batch.targets, masks, strict=True)]
    features = network.backbone(batch.images)
    listed = ImageList(batch.images, batch.sizes)
    proposals, first = network.rpn(listed, features, targets)
    _, second = network.roi_heads(features, proposals, batch.sizes, targets)
    return {**first, **second}


def test_losses_and_gradients_equal_torchvisions(
    both: tuple[StockMaskRCNN, MaskRCNN], batch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same weights, pictures, samples and mask targets: losses within 1e-5, gradients within 1e-4."""
    theirs, ours = both
    masks = [_dense(t["boxes"], (96, 128)) for t in batch.targets]
    every = torch.cat(masks).float()

    def targets(
        _: Tensor, __: Tensor, rois: Tensor, owner: Tensor, size: int, **___: Any
    ) -> Tensor:
        found: Tensor = project_masks_on_boxes(every, rois, owner, size)
        return found

    monkeypatch.setattr(losses, "mask_targets", targets)
    expected = _stock_losses(theirs, batch, masks)
    found = training_losses(ours, batch.images, batch.sizes, batch.targets, keys=[1, 2]).means()
    assert sorted(found) == sorted(expected)
    for name in LOSSES:
        assert found[name].item() == pytest.approx(expected[name].item(), rel=1e-5), name
        assert found[name].item() > 0
    for network_losses in (expected, found):
        torch.stack(list(network_losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    differences, norms = [], []
    for (name, mine), its in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert (mine.grad is None) == (its.grad is None), name
        if mine.grad is not None and its.grad is not None:
            differences.append((mine.grad - its.grad).norm())
            norms.append(its.grad.norm())
            # an activation near 0 may be on the other side of a ReLU, which shows in a single layer's gradient
            assert differences[-1] <= 1e-3 * norms[-1] + 1e-8, name
    assert torch.stack(differences).norm() <= 1e-4 * torch.stack(norms).norm()


def test_the_networks_training_forward_is_the_means(make_nano: Make, batch: Any) -> None:
    """`forward` divides sums by counts, and takes the keys that ride in the targets."""
    network = make_nano()
    keyed = [{**t, "key": torch.tensor(i + 5)} for i, t in enumerate(batch.targets)]
    found = network(batch.images, batch.sizes, keyed)
    sums = training_losses(network, batch.images, batch.sizes, batch.targets, keys=[5, 6])
    assert isinstance(found, dict)
    for name in LOSSES:
        assert found[name].item() == (sums.sums[name] / sums.counts[name].clamp(min=1)).item()
    assert sums.counts["loss_objectness"].item() == 512
    assert torch.equal(sums.stacked_counts(), torch.stack([sums.counts[n] for n in LOSSES]))
    doubled = sums.named(2 * sums.stacked_counts())
    assert sums.means(doubled)["loss_mask"].item() == pytest.approx(found["loss_mask"].item() / 2)


def test_training_without_targets_is_refused(make_nano: Make) -> None:
    """In training mode there is nothing to return without them."""
    with pytest.raises(ValueError, match="training needs targets"):
        make_nano()(torch.zeros(1, 3, 64, 64), [(64, 64)])


def _gradients(network: MaskRCNN, found: dict[str, Tensor]) -> list[Tensor]:
    parameters = [p for p in network.parameters() if p.requires_grad]
    return list(torch.autograd.grad(torch.stack(list(found.values())).sum(), parameters))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_same_keys_give_the_same_bits(make_nano: Make, batch: Any, precision: str) -> None:
    """Twice the same losses and gradients; other keys draw other samples."""
    network = make_nano()
    network.roi_heads.fg_bg_sampler.batch_size_per_image = 32
    runs = []
    for keys in ([3, 4], [3, 4], [9, 8]):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            sums = training_losses(network, batch.images, batch.sizes, batch.targets, keys)
        runs.append((sums, _gradients(network, sums.means())))
    for name in LOSSES:
        assert torch.equal(runs[0][0].sums[name], runs[1][0].sums[name])
    assert all(torch.equal(a, b) for a, b in zip(runs[0][1], runs[1][1], strict=True))
    assert not torch.equal(runs[0][0].sums["loss_objectness"], runs[2][0].sums["loss_objectness"])


def test_a_pictures_samples_do_not_depend_on_its_batch(make_nano: Make, batch: Any) -> None:
    """Two pictures at once, or one after the other with the same keys: sums and counts add up."""
    network = make_nano()
    together = training_losses(network, batch.images, batch.sizes, batch.targets, [3, 4])
    alone = [
        training_losses(
            network, batch.images[i : i + 1], batch.sizes[i : i + 1], batch.targets[i : i + 1], [k]
        )
        for i, k in enumerate((3, 4))
    ]
    for name in LOSSES:
        total = sum(one.sums[name].item() for one in alone)
        assert together.sums[name].item() == pytest.approx(total, rel=1e-4, abs=1e-6), name
        assert together.counts[name].item() == sum(one.counts[name].item() for one in alone)


def test_bf16_is_close(make_nano: Make, batch: Any) -> None:
    """Under autocast each loss stays within a few percent, and is float32."""
    network = make_nano()
    exact = training_losses(network, batch.images, batch.sizes, batch.targets, [1, 2]).means()
    with torch.autocast("cpu", torch.bfloat16):
        close = training_losses(network, batch.images, batch.sizes, batch.targets, [1, 2]).means()
    for name in LOSSES:
        assert close[name].dtype == torch.float32
        assert close[name].item() == pytest.approx(exact[name].item(), rel=0.05, abs=0.01), name


def test_checkpointed_activations_give_the_same_gradients(make_nano: Make, batch: Any) -> None:
    """Less is kept, nothing else changes."""
    network = make_nano()
    found = []
    for checkpointed in (False, True):
        prepare_for_training(network, checkpoint_activations=checkpointed)
        sums = training_losses(network, batch.images, batch.sizes, batch.targets, [1, 2])
        found.append(_gradients(network, sums.means()))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_classes_of_other_datasets_are_left_out(make_nano: Make, batch: Any) -> None:
    """With `classes` the other logits neither matter nor learn; a picture without it knows all."""
    network = make_nano(classes=3)
    batch.targets[0] = {**batch.targets[0], "labels": torch.tensor([1, 3, 1])}
    known = torch.tensor([True, True, False, True])
    limited = [{**batch.targets[0], "classes": known}]
    one = batch.images[:1], batch.sizes[:1]
    free = training_losses(network, *one, batch.targets[:1], [1]).means()
    less = training_losses(network, *one, limited, [1]).means()
    assert less["loss_classifier"].item() < free["loss_classifier"].item()
    bias = network.roi_heads.box_predictor.cls_score.bias
    gradient = torch.autograd.grad(less["loss_classifier"], bias)[0]
    assert gradient[2] == 0
    assert (gradient[[0, 1, 3]] != 0).all()
    mixed = training_losses(
        network, batch.images, batch.sizes, [*limited, batch.targets[1]], [1, 2]
    )
    assert torch.isfinite(mixed.sums["loss_classifier"])


@pytest.mark.parametrize(
    ("size", "boxes"),
    [
        ((64, 64), []),
        ((16, 24), [[2.0, 3, 9, 12]]),
        ((96, 128), [[0.0, 0, 128, 96]]),
        ((96, 128), [[5.0, 5, 6, 6]]),
        ((96, 128), [[i % 120, i % 90, i % 120 + 6, i % 90 + 5] for i in range(2000)]),
    ],
    ids=["none", "tiny picture", "one huge box", "one pixel", "2,000 objects"],
)
def test_awkward_pictures(
    make_nano: Make, make_objects: MakeObjects, size: tuple[int, int], boxes: list[list[float]]
) -> None:
    """Losses and gradients are finite, and every parameter has one."""
    network = make_nano()
    targets = [make_objects(boxes, [1 + i % 3 for i in range(len(boxes))])]
    found = network(torch.randn(1, 3, *size), [size], targets)
    assert isinstance(found, dict)
    assert (found["loss_mask"].item() > 0) == bool(boxes)
    for name, gradient in zip(
        [n for n, _ in network.named_parameters()], _gradients(network, found), strict=True
    ):
        assert torch.isfinite(gradient).all(), name
