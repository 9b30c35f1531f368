"""The families' variants of the losses: values against torchvision and arithmetic by hand, and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

from segcli.models import MaskRCNN
from segcli.models.boxes import DeltaCoder
from segcli.models.class_layout import ClassLayout
from segcli.models.conventions import TORCHVISION_V1_COCO
from segcli.models.training import rpn_losses
from segcli.models.training.losses import training_losses
from segcli.models.training.options import DETECTRON2_LOSSES, MMDETECTION_LOSSES, LossConfig
from segcli.models.training.prepare import prepare_for_training
from segcli.models.training.roi_losses import RoIs, box_losses
from segcli.models.training.sampling import Sample

WEIGHTS = (10.0, 10.0, 5.0, 5.0)
CODER = DeltaCoder(TORCHVISION_V1_COCO.numerics, scaled=True)
OVERLAP: dict[str, Callable[..., Tensor]] = {
    "giou": generalized_box_iou_loss,
    "diou": distance_box_iou_loss,
    "ciou": complete_box_iou_loss,
}
CLASSES = 2
# two of foreground, of class 1 and 0, and one of background
BOXES = [[10.0, 10, 50, 40], [5.0, 20, 25, 60], [70.0, 70, 90, 95]]
OBJECTS = [[14.0, 8, 56, 44], [2.0, 22, 30, 58], [14.0, 8, 56, 44]]
LABELS = torch.tensor([1, 0, 1])
FOREGROUND = torch.tensor([True, True, False])


def _rois(boxes: list[list[float]]) -> RoIs:
    none = torch.zeros(len(boxes), dtype=torch.int64)
    valid = torch.ones(len(boxes), dtype=torch.bool)
    return RoIs(torch.tensor(boxes), none, none, FOREGROUND, valid)


def _box_loss(
    deltas: Tensor, config: LossConfig, boxes: list[list[float]], objects: list[list[float]]
) -> tuple[Tensor, float]:
    """Sum of the box loss and its count; deltas are (R, 4 · (K + 1))."""
    found = torch.zeros(len(boxes), CLASSES + 1), deltas
    _, box, count = box_losses(
        found, _rois(boxes), LABELS, torch.tensor(objects), None, ClassLayout(), CODER, config
    )
    return box, count.item()


def _deltas() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(3, 4 * (CLASSES + 1)).requires_grad_()


def _own(deltas: Tensor) -> Tensor:
    """Each foreground row's four of its class; the background has the first group."""
    return torch.stack([deltas[0, 8:12], deltas[1, 4:8]])


@pytest.mark.parametrize("kind", list(OVERLAP))
def test_overlap_losses_equal_torchvisions(kind: Any) -> None:
    """Of decoded boxes, summed over the foreground; background rows have no gradient."""
    deltas = _deltas()
    found, count = _box_loss(deltas, LossConfig(box_kind=kind), BOXES, OBJECTS)
    boxes = BoxCoder(WEIGHTS).decode_single(_own(deltas), torch.tensor(BOXES[:2]))
    expected = OVERLAP[kind](boxes, torch.tensor(OBJECTS[:2]), reduction="sum")
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    assert count == 3  # all RoIs, as in Girshick 2015
    mine, theirs = (torch.autograd.grad(loss, deltas)[0] for loss in (found, expected))
    assert torch.allclose(mine, theirs, rtol=1e-5, atol=1e-8)
    assert not mine[2].any()


def _smooth_l1(found: Tensor, wanted: Tensor, beta: float) -> float:
    """Girshick 2015, equation 3, with `beta` for its 1; in Python's own numbers."""
    total = 0.0
    for a, b in zip(found.flatten().tolist(), wanted.flatten().tolist(), strict=True):
        d = abs(a - b)
        total += 0.5 * d * d / beta if d < beta else d - 0.5 * beta
    return total


@pytest.mark.parametrize("beta", [0.0, 1 / 9, 1.0], ids=["L1", "torchvision", "paper"])
def test_smooth_l1_of_the_box_head(beta: float) -> None:
    """Against the formula by hand, on torchvision's targets."""
    deltas = _deltas()
    found, _ = _box_loss(deltas, LossConfig(box_smooth_l1_beta=beta), BOXES, OBJECTS)
    wanted = BoxCoder(WEIGHTS).encode_single(torch.tensor(OBJECTS[:2]), torch.tensor(BOXES[:2]))
    assert found.item() == pytest.approx(_smooth_l1(_own(deltas), wanted, beta), rel=1e-5)


@pytest.mark.parametrize("beta", [0.0, 1 / 9], ids=["L1", "torchvision"])
def test_smooth_l1_of_the_rpn(beta: float) -> None:
    """Foreground anchors alone, also where a background anchor's target is infinite."""
    torch.manual_seed(0)
    deltas, targets = torch.randn(4, 4).requires_grad_(), torch.randn(4, 4)
    targets[3] = torch.inf
    foreground = torch.tensor([True, True, False, False])
    sample = Sample(torch.arange(4), foreground, torch.ones(4, dtype=torch.bool))
    config = LossConfig(rpn_smooth_l1_beta=beta)
    _, box, count = rpn_losses._losses((torch.zeros(4), deltas), [sample], targets, config)
    assert box.item() == pytest.approx(_smooth_l1(deltas[:2], targets[:2], beta), rel=1e-5)
    assert count.item() == 4
    gradient = torch.autograd.grad(box, deltas)[0]
    assert torch.isfinite(gradient).all()
    assert not gradient[2:].any()


@pytest.mark.parametrize("kind", ["smooth_l1", *OVERLAP])
@pytest.mark.parametrize(
    ("boxes", "objects", "step"),
    [
        pytest.param([*BOXES[:2], [7.0, 7, 7, 7]], OBJECTS, 0.0, id="background without area"),
        pytest.param(BOXES, OBJECTS, -1e3, id="predicted without area"),
        pytest.param(BOXES, OBJECTS, 1e3, id="predicted huge"),
        pytest.param([*BOXES[:2], [0.0] * 4], [*OBJECTS[:2], [0.0] * 4], 0.0, id="padding row"),
        pytest.param(BOXES, BOXES, 0.0, id="found exactly"),
    ],
)
def test_gradients_of_degenerate_boxes_are_finite(
    kind: Any, boxes: list[list[float]], objects: list[list[float]], step: float
) -> None:
    """And so is the loss."""
    deltas = torch.full((3, 4 * (CLASSES + 1)), step, requires_grad=True)
    found, _ = _box_loss(deltas, LossConfig(box_kind=kind), boxes, objects)
    assert torch.isfinite(found)
    assert torch.isfinite(torch.autograd.grad(found, deltas)[0]).all()


@pytest.mark.parametrize("kind", list(OVERLAP))
def test_an_object_without_area(kind: Any) -> None:
    """Its deltas would be infinite, but its overlap with a box is not."""
    deltas = torch.zeros(3, 4 * (CLASSES + 1), requires_grad=True)
    objects = [[30.0, 20, 30, 20], *OBJECTS[1:]]
    found, _ = _box_loss(deltas, LossConfig(box_kind=kind), BOXES, objects)
    assert torch.isfinite(found)
    assert torch.isfinite(torch.autograd.grad(found, deltas)[0]).all()


def test_denominators(make_nano: Callable[..., MaskRCNN], batch: Any) -> None:
    """detectron2 divides the RPN's losses by the anchors asked for, the others by those that were sampled."""
    network = make_nano()
    network.rpn.fg_bg_sampler.batch_size_per_image = 50_000  # more than there are
    found = {}
    for name, config in (("d2", DETECTRON2_LOSSES), ("mm", MMDETECTION_LOSSES)):
        prepare_for_training(network, losses=config)
        found[name] = training_losses(network, batch.images, batch.sizes, batch.targets, [1, 2])
    configured, sampled = found["d2"], found["mm"]
    for name in ("loss_objectness", "loss_rpn_box_reg"):
        assert configured.counts[name].item() == 100_000
        assert 0 < sampled.counts[name].item() < 20_000
        assert configured.sums[name].item() == sampled.sums[name].item()
    for name in ("loss_classifier", "loss_box_reg", "loss_mask"):
        assert configured.means()[name].item() == sampled.means()[name].item()


def test_wrong_variants_are_refused() -> None:
    """With what was found and what is expected."""
    with pytest.raises(ValueError, match="beta is below 0"):
        LossConfig(box_smooth_l1_beta=-1.0)
    with pytest.raises(ValueError, match="box_kind 'iou', expected one of smooth_l1, giou"):
        LossConfig(box_kind="iou")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rpn_denominator 'all', expected sampled or configured"):
        LossConfig(rpn_denominator="all")  # type: ignore[arg-type]
