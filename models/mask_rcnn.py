"""Mask R-CNN (He et al. 2017) put together from torchvision's modules, under torchvision's names."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from segcli.models.architectures import ARCHITECTURES, Architecture
from segcli.models.backbones import build_backbone, head_norm, set_bn_eps
from segcli.models.pooler import PyramidRoIAlign
from segcli.models.roi_heads import RoIHeads, Targets
from segcli.models.spec import ModelSpec


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
        self.backbone = build_backbone(architecture)
        self.rpn = _build_rpn(architecture, spec)
        self.roi_heads = _build_heads(architecture, spec, roi_align)
        set_bn_eps(self, spec.conventions.numerics.bn_eps)

    def forward(
        self, images: Tensor, image_sizes: list[tuple[int, int]], targets: Targets | None = None
    ) -> list[Detections] | dict[str, Tensor]:
        """Losses in training mode, detections in evaluation mode.

        Args:
            images: float32 (N, 3, H, W), normalised, zero-padded at the right and bottom.
            image_sizes: (h, w) of each picture's valid area, in pixels.
            targets: in training, per picture: `boxes` float32 (G, 4) xyxy in input pixels, `labels` int64 (G,) from 1,
                `masks` uint8 (G, 58, 58) patches (`segcli.models.mask_targets`).

        Returns:
            In training a dict of scalar losses: `loss_objectness`, `loss_rpn_box_reg`, `loss_classifier`,
            `loss_box_reg`, `loss_mask`; else one `Detections` per picture.
        """
        features = self.backbone(images)
        listed = ImageList(images, image_sizes)
        proposals, rpn_losses = self.rpn(listed, features, targets)
        found, head_losses = self.roi_heads(features, proposals, image_sizes, targets)
        if self.training:
            return {**rpn_losses, **head_losses}
        return [Detections(d["boxes"], d["scores"], d["labels"] - 1, d["masks"]) for d in found]

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


def _build_rpn(architecture: Architecture, spec: ModelSpec) -> RegionProposalNetwork:
    """Region proposal network (Ren et al. 2015), torchvision's thresholds and sample counts."""
    anchors = AnchorGenerator(
        spec.anchors.sizes, (spec.anchors.aspect_ratios,) * len(spec.anchors.sizes)
    )
    head = _WideRPNHead(architecture.fpn_channels, anchors.num_anchors_per_location()[0])
    kept = dict(zip(("training", "testing"), architecture.proposals, strict=True))
    return RegionProposalNetwork(
        anchors, head, fg_iou_thresh=architecture.rpn_foreground_iou, bg_iou_thresh=0.3,
        batch_size_per_image=256,
        positive_fraction=0.5, pre_nms_top_n=kept, post_nms_top_n=kept, nms_thresh=0.7,
    )  # fmt: skip


def _build_heads(architecture: Architecture, spec: ModelSpec, backend: str) -> RoIHeads:
    """Box and mask heads, torchvision's thresholds."""
    numerics, post = spec.conventions.numerics, spec.conventions.postprocess
    channels, rows = architecture.fpn_channels, spec.classes + 1
    mask_layers = (architecture.mask_channels,) * 4
    heads = RoIHeads(
        box_roi_pool=PyramidRoIAlign(7, numerics, backend),
        box_head=TwoMLPHead(channels * 7 * 7, architecture.box_channels),
        box_predictor=FastRCNNPredictor(architecture.box_channels, rows),
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
        mask_predictor=MaskRCNNPredictor(mask_layers[-1], architecture.mask_channels, rows),
    )
    heads.aligned = numerics.roi_aligned
    heads.mask_rois = architecture.mask_rois_per_image
    return heads
