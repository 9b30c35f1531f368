"""Mask R-CNN (He et al. 2017) put together from torchvision's modules, under torchvision's names."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import (
    FastRCNNConvFCHead,
    FastRCNNPredictor,
    TwoMLPHead,
)
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead

from segcli.models.architectures import ARCHITECTURES, Architecture
from segcli.models.backbones import build_backbone, head_norm, set_bn_eps
from segcli.models.boxes import DeltaCoder
from segcli.models.conventions import Numerics
from segcli.models.pooler import PyramidRoIAlign
from segcli.models.postprocess import SelectionRules
from segcli.models.roi_heads import RoIHeads
from segcli.models.rpn import ProposalNetwork, PyramidAnchors
from segcli.models.spec import ModelSpec
from segcli.models.training.options import TrainingOptions


@dataclass(frozen=True)
class Detections:
    """Objects of one picture in the frame of the network's input.

    Attributes:
        boxes: float32 (N, 4), xyxy in input pixels, inside the picture.
        scores: float32 (N,), falling.
        labels: int64 (N,), 0-based, no background.
        masks: float32 (N, 28, 28), probability inside the box.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor


class MaskRCNN(nn.Module):
    """The network. State-dict names are those of `torchvision.models.detection.MaskRCNN`.

    Args:
        spec: architecture, classes, anchors and conventions.
        roi_align: backend, see `segcli.models.roi_align`.
    """

    def __init__(self, spec: ModelSpec, roi_align: str = "auto") -> None:
        super().__init__()
        architecture = ARCHITECTURES[spec.architecture]
        self.spec = spec
        self.backbone = build_backbone(architecture, spec.conventions.numerics)
        self.rpn = _build_rpn(architecture, spec)
        self.roi_heads = _build_heads(architecture, spec, roi_align)
        set_bn_eps(self, spec.conventions.numerics.bn_eps)
        self.training_options = TrainingOptions()

    def forward(
        self,
        images: Tensor,
        image_sizes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> list[Detections] | dict[str, Tensor]:
        """Losses in training mode, detections in evaluation mode.

        Args:
            images: float32 (N, 3, H, W), normalised, zero-padded at the right and bottom.
            image_sizes: (h, w) of each picture's valid area, in pixels.
            targets: in training, per picture, see `segcli.models.training.training_losses`.

        Returns:
            In training a dict of scalar losses: `loss_objectness`, `loss_rpn_box_reg`, `loss_classifier`,
            `loss_box_reg`, `loss_mask`; else one `Detections` per picture.
        """
        if self.training:
            if targets is None:
                raise ValueError("training needs targets, found None")
            # late: the fast paths of inference, which training shares, know this class
            from segcli.models.training.losses import training_losses

            return training_losses(self, images, image_sizes, targets).means()
        features = self.backbone(images)
        proposals, _ = self.rpn(ImageList(images, image_sizes), features)
        found, _ = self.roi_heads(features, proposals, image_sizes)
        return [Detections(d["boxes"], d["scores"], d["labels"] - 1, d["masks"]) for d in found]

    def train(self, mode: bool = True) -> MaskRCNN:
        """As any module's, but batch norms keep the statistics of pre-training: a few pictures have no good ones."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def set_limits(self, *, score: float, max_detections: int) -> None:
        """Lowest score kept (exclusive, as in torchvision) and most detections per picture."""
        self.roi_heads.score_thresh = score
        self.roi_heads.detections_per_img = max_detections


class _WideRPNHead(RPNHead):  # type: ignore[misc]  # torchvision has no types
    """torchvision's head whose outputs are float32 under autocast: box arithmetic never runs in 16 bits."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Objectness logits and box deltas per level."""
        logits, deltas = super().forward(x)
        return [level.float() for level in logits], [level.float() for level in deltas]


def _build_rpn(architecture: Architecture, spec: ModelSpec) -> ProposalNetwork:
    """Region proposal network (Ren et al. 2015), torchvision's thresholds and sample counts."""
    numerics = spec.conventions.numerics
    anchors = PyramidAnchors(spec.anchors, numerics)
    head = _WideRPNHead(
        architecture.fpn_channels,
        anchors.num_anchors_per_location()[0],
        conv_depth=architecture.rpn_convolutions,
    )
    before = dict(zip(("training", "testing"), architecture.proposals, strict=True))
    after = {**before, "training": min(before["training"], numerics.rpn_kept_train)}
    return ProposalNetwork(
        numerics,
        anchor_generator=anchors, head=head, fg_iou_thresh=architecture.rpn_foreground_iou,
        bg_iou_thresh=0.3, batch_size_per_image=256, positive_fraction=0.5,
        pre_nms_top_n=before, post_nms_top_n=after, nms_thresh=0.7,
    )  # fmt: skip


def _build_heads(architecture: Architecture, spec: ModelSpec, backend: str) -> RoIHeads:
    """Box and mask heads, torchvision's thresholds."""
    numerics, post = spec.conventions.numerics, spec.conventions.postprocess
    channels, layout = architecture.fpn_channels, numerics.class_layout
    mask_layers = (architecture.mask_channels,) * 4
    coder = DeltaCoder(numerics, scaled=True)
    heads = RoIHeads(
        box_roi_pool=PyramidRoIAlign(7, numerics, backend),
        box_head=_box_head(architecture),
        box_predictor=_box_predictor(architecture.box_channels, spec.classes, numerics),
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=architecture.rois_per_image,
        positive_fraction=0.25,
        bbox_reg_weights=None,
        score_thresh=0.05,
        nms_thresh=post.nms_iou,
        detections_per_img=post.max_detections,
        mask_roi_pool=PyramidRoIAlign(14, numerics, backend),
        mask_head=MaskRCNNHeads(channels, mask_layers, 1, norm_layer=head_norm(architecture)),
        mask_predictor=MaskRCNNPredictor(
            mask_layers[-1], architecture.mask_channels, layout.mask_rows(spec.classes)
        ),
    )
    heads.box_coder = coder
    heads.rules = SelectionRules(spec.classes, numerics, post, coder)
    heads.aligned = numerics.roi_aligned
    heads.mask_rois = architecture.mask_rois_per_image
    return heads


def _box_head(architecture: Architecture) -> nn.Module:
    channels = architecture.fpn_channels
    if architecture.box_convolutions == 0:
        two: nn.Module = TwoMLPHead(channels * 7 * 7, architecture.box_channels)
        return two
    deep: nn.Module = FastRCNNConvFCHead(
        (channels, 7, 7), [channels] * architecture.box_convolutions, [architecture.box_channels],
        norm_layer=head_norm(architecture),
    )  # fmt: skip
    return deep


def _box_predictor(channels: int, classes: int, numerics: Numerics) -> nn.Module:
    """torchvision's, with as many rows as the class layout has."""
    layout = numerics.class_layout
    predictor: nn.Module = FastRCNNPredictor(channels, layout.score_rows(classes))
    if layout.box_groups(classes) != layout.score_rows(classes):
        predictor.bbox_pred = nn.Linear(channels, layout.box_rows(classes))
    return predictor
