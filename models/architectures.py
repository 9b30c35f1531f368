"""The networks that segcli can build, one row each, and how each likes to be trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from segcli.models.conventions import OWN, Conventions, Preprocess

Norm = Literal["frozen_batch", "group"]


@dataclass(frozen=True)
class Recipe:
    """Defaults of `segcli train` that depend on the network.

    Attributes:
        batch_size: pictures per step.
        optimizer: `sgd` or `adamw`.
        lr: peak learning rate at `batch_size`.
        weight_decay: of weights; biases and norms have none.
    """

    batch_size: int
    optimizer: str
    lr: float
    weight_decay: float


@dataclass(frozen=True)
class Architecture:
    """One network.

    Attributes:
        name: as given to `--model`; never holds a `/`.
        summary: one line.
        backbone: `resnet50` (torchvision's) or `nano` (ours).
        fpn_channels: of P2 … P6.
        box_channels: of the two fully connected layers of the box head.
        mask_channels: of the four convolutions of the mask head.
        norm: `frozen_batch` (batch norm with the statistics of pre-training, backbone only) or `group` (group norm
            in backbone, pyramid and mask head: random weights learn faster with it, see He et al. 2018, "Rethinking
            ImageNet pre-training", section 3.1, and pictures of unlike kinds do not share statistics).
        rpn_foreground_iou: anchors that overlap an object by this much are examples of objects; small objects
            between two anchor sizes never reach the usual 0.7.
        proposals: RPN proposals kept per picture (training, testing).
        rois_per_image: RoIs sampled per picture in training, a quarter of them objects.
        mask_rois_per_image: most objects of those that the mask head sees; its convolutions cost as much as the
            backbone. None = all.
        anchors_from_data: training chooses anchors from the dataset's boxes.
        conventions: what new weights use.
        recipe: how to train it.
    """

    name: str
    summary: str
    backbone: str
    fpn_channels: int
    box_channels: int
    mask_channels: int
    norm: Norm
    rpn_foreground_iou: float
    proposals: tuple[int, int]
    rois_per_image: int
    mask_rois_per_image: int | None
    anchors_from_data: bool
    conventions: Conventions
    recipe: Recipe


R50_FPN = Architecture(
    name="mask-rcnn-r50-fpn",
    summary="ResNet-50, FPN: torchvision's maskrcnn_resnet50_fpn",
    backbone="resnet50",
    fpn_channels=256,
    box_channels=1024,
    mask_channels=256,
    norm="frozen_batch",
    rpn_foreground_iou=0.7,
    proposals=(2000, 1000),
    rois_per_image=512,
    mask_rois_per_image=None,
    anchors_from_data=False,
    conventions=Conventions(),
    recipe=Recipe(batch_size=2, optimizer="sgd", lr=0.0025, weight_decay=1e-4),
)
NANO = Architecture(
    name="mask-rcnn-nano",
    summary="light residual backbone, narrow FPN and heads: learns from random weights on a laptop",
    backbone="nano",
    fpn_channels=64,
    box_channels=256,
    mask_channels=64,
    norm="group",
    rpn_foreground_iou=0.5,
    proposals=(500, 1000),
    rois_per_image=128,
    mask_rois_per_image=16,
    anchors_from_data=True,
    conventions=replace(OWN, preprocess=Preprocess(min_size=320, max_size=640)),
    recipe=Recipe(batch_size=8, optimizer="adamw", lr=0.001, weight_decay=0.05),
)
ARCHITECTURES: dict[str, Architecture] = {a.name: a for a in (R50_FPN, NANO)}
