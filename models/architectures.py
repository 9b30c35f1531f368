"""The networks that segcli can build, one row each, and how each likes to be trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from segcli.models.conventions import OWN, Conventions, Preprocess
from segcli.models.presets import TORCHVISION_V2

Norm = Literal["frozen_batch", "batch", "group"]


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
        backbone: a row of `segcli.models.backbones`: torchvision's ResNets, ResNeXts and MobileNet, or `nano` (ours).
        fpn_channels: of P2 … P6.
        box_channels: of the two fully connected layers of the box head.
        mask_channels: of the four convolutions of the mask head.
        norm: `frozen_batch` (batch norm with the statistics and factors of pre-training, backbone only), `batch`
            (batch norm in backbone, pyramid, box and mask head, with the statistics of pre-training and factors that
            learn), or `group` (group norm in backbone, pyramid and mask head: random weights learn faster with it, see
            He et al. 2018, "Rethinking ImageNet pre-training", section 3.1, and pictures of unlike kinds do not share
            statistics).
        rpn_foreground_iou: anchors that overlap an object by this much are examples of objects; small objects
            between two anchor sizes never reach the usual 0.7.
        proposals: RPN proposals kept per picture (training, testing).
        rois_per_image: RoIs sampled per picture in training, a quarter of them objects.
        mask_rois_per_image: most objects of those that the mask head sees; its convolutions cost as much as the
            backbone. None = all.
        anchors_from_data: training chooses anchors from the dataset's boxes.
        conventions: what new weights use.
        recipe: how to train it.
        rpn_convolutions: 3×3 convolutions of the RPN head before its predictors.
        box_convolutions: 3×3 convolutions of the box head; with some, one fully connected layer follows, else two.
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
    rpn_convolutions: int = 1
    box_convolutions: int = 0


_FINE_TUNING = Recipe(batch_size=2, optimizer="sgd", lr=0.0025, weight_decay=1e-4)
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
    recipe=_FINE_TUNING,
)
R50_FPN_V2 = replace(
    R50_FPN,
    name="mask-rcnn-r50-fpn-v2",
    summary="ResNet-50, batch norm in FPN and heads, deeper heads: torchvision's maskrcnn_resnet50_fpn_v2",
    norm="batch",
    conventions=TORCHVISION_V2,
    rpn_convolutions=2,
    box_convolutions=4,
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
MOBILENET_V3 = replace(
    NANO,
    name="mask-rcnn-mobilenet-v3-fpn",
    summary="MobileNet-V3-large, FPN of 128 channels on strides 4 to 32; learns from random weights",
    backbone="mobilenet_v3_large",
    fpn_channels=128,
    box_channels=512,
    mask_channels=128,
    proposals=(1000, 1000),
    rois_per_image=256,
    mask_rois_per_image=32,
    conventions=replace(OWN, preprocess=Preprocess(min_size=480, max_size=800)),
    recipe=Recipe(batch_size=4, optimizer="adamw", lr=0.0005, weight_decay=0.05),
)


def _residual(
    short: str, backbone: str, summary: str, recipe: Recipe = _FINE_TUNING
) -> Architecture:
    return replace(
        R50_FPN, name=f"mask-rcnn-{short}-fpn", backbone=backbone, summary=summary, recipe=recipe
    )


# of the deep ones a picture's features fill 8 GB and more in training, so one per step, and half the rate (Goyal et
# al. 2017, "Accurate, Large Minibatch SGD", section 2.1)
_ONE_BY_ONE = replace(_FINE_TUNING, batch_size=1, lr=_FINE_TUNING.lr / 2)
ARCHITECTURES: dict[str, Architecture] = {
    row.name: row
    for row in (
        R50_FPN,
        NANO,
        _residual("r18", "resnet18", "ResNet-18, FPN"),
        _residual("r34", "resnet34", "ResNet-34, FPN"),
        _residual("r101", "resnet101", "ResNet-101, FPN"),
        _residual("x101-32x4d", "resnext101_32x4d", "ResNeXt-101 of 32 groups of 4, FPN"),
        _residual(
            "x101-32x8d", "resnext101_32x8d", "ResNeXt-101 of 32 groups of 8, FPN", _ONE_BY_ONE
        ),
        _residual(
            "x101-64x4d", "resnext101_64x4d", "ResNeXt-101 of 64 groups of 4, FPN", _ONE_BY_ONE
        ),
        MOBILENET_V3,
        R50_FPN_V2,
    )
}
