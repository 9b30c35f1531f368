"""Objects that a step does not look at: neither objects nor background."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from segcli.models import MaskRCNN
from segcli.models.training import rpn_losses
from segcli.models.training.loss_sums import LOSSES
from segcli.models.training.losses import training_losses
from segcli.models.training.proposals import Proposals
from segcli.models.training.roi_losses import sample_rois

Make = Callable[..., MaskRCNN]
MakeObjects = Callable[[list[list[float]], list[int]], dict[str, Tensor]]


def _gradients(network: MaskRCNN, found: dict[str, Tensor]) -> list[Tensor]:
    total = torch.stack(list(found.values())).sum()
    return list(torch.autograd.grad(total, list(network.parameters())))


def test_objects_left_out_are_no_background(make_nano: Make, batch: Any) -> None:
    """What is background is what it would be with all objects; nothing near the others is in the sample."""
    network = make_nano()
    network.rpn.fg_bg_sampler.batch_size_per_image = 10**6  # all: chance has no part
    whole = batch.targets[0]
    one = {name: value[:1] for name, value in whole.items()}
    found = {
        name: training_losses(network, batch.images[:1], batch.sizes[:1], [target], [1]).counts
        for name, target in {
            "all": whole,
            "taken for background": one,
            "left alone": {**one, "others": whole["boxes"][1:]},
        }.items()
    }
    objectness = {name: int(counts["loss_objectness"]) for name, counts in found.items()}
    every = network.rpn.anchor_generator.kept_per_level((96, 128), _maps(network, batch.images[:1]))
    overlaps = box_iou(whole["boxes"], torch.cat(every))
    chosen = (overlaps >= 0.5) | (overlaps == overlaps.amax(1, keepdim=True))
    background = ~chosen.any(0) & (overlaps.amax(0) < 0.3)
    assert objectness["all"] == int(background.sum() + chosen.any(0).sum())
    assert objectness["left alone"] == int(background.sum() + chosen[0].sum())
    assert objectness["taken for background"] > objectness["left alone"]


def _maps(network: MaskRCNN, images: Tensor) -> list[Tensor]:
    logits: list[Tensor] = network.rpn.head(list(network.backbone(images).values()))[0]
    return logits


def test_proposals_near_objects_left_out_are_not_drawn(make_nano: Make) -> None:
    """From an overlap of half on, as for any object; the objects' own boxes are drawn whatever they overlap."""
    heads = make_nano().roi_heads
    objects, others = (
        torch.tensor([[0.0, 0, 10, 10]]),
        torch.tensor([[20.0, 0, 30, 10], [0, 0, 10, 12]]),
    )
    near: list[list[float]] = [[20, 0, 30, 5], [0, 0, 10, 13]]
    far: list[list[float]] = [[20, 0, 30, 4.5], [60, 60, 70, 70]]
    proposals = Proposals(torch.tensor([*near, *far]), torch.ones(4, dtype=torch.bool))
    rois = sample_rois(heads, proposals, objects, others, torch.Generator().manual_seed(0))
    assert sorted(rois.boxes[rois.foreground].tolist()) == [[0, 0, 10, 10], near[1]]
    assert sorted(rois.boxes[~rois.foreground].tolist()) == sorted(far)
    rois = sample_rois(heads, proposals, objects, None, torch.Generator().manual_seed(0))
    assert len(rois.boxes) == 5


def test_no_others_change_nothing(make_nano: Make, batch: Any) -> None:
    """Losses and gradients of a step without others, and with none, are the same bits."""
    network = make_nano()
    network.roi_heads.fg_bg_sampler.batch_size_per_image = 32
    runs = []
    for more in ({}, {"others": torch.zeros(0, 4)}):
        targets = [{**target, **more} for target in batch.targets]
        sums = training_losses(network, batch.images, batch.sizes, targets, [3, 4])
        runs.append((sums, _gradients(network, sums.means())))
    assert all(torch.equal(runs[0][0].sums[name], runs[1][0].sums[name]) for name in LOSSES)
    assert all(torch.equal(a, b) for a, b in zip(runs[0][1], runs[1][1], strict=True))


def test_a_picture_of_which_nothing_is_sampled(
    make_nano: Make, make_objects: MakeObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All proposals lie on objects that are left out: the losses of the heads are 0, and all gradients there."""
    network, others = make_nano(), torch.tensor([[4.0, 4, 40, 40], [20, 8, 60, 60]])
    there = Proposals(others, torch.ones(2, dtype=torch.bool))
    monkeypatch.setattr(rpn_losses, "propose", lambda *_: [there])
    target = {**make_objects([], []), "others": others}
    sums = training_losses(network, torch.randn(1, 3, 64, 64), [(64, 64)], [target], [1])
    assert sums.counts["loss_classifier"] == 0
    found = sums.means()
    assert found["loss_classifier"] == found["loss_box_reg"] == found["loss_mask"] == 0
    assert all(torch.isfinite(gradient).all() for gradient in _gradients(network, found))
