"""torchvision's RoI heads with our mask targets; parameters and names are torchvision's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection import roi_heads as torchvision_roi_heads
from torchvision.models.detection.roi_heads import fastrcnn_loss, maskrcnn_inference

from segcli.models.mask_targets import mask_targets

Targets = list[dict[str, Tensor]]


class RoIHeads(torchvision_roi_heads.RoIHeads):  # type: ignore[misc]  # torchvision has no types
    """Box and mask branch (He et al. 2017).

    Attributes:
        aligned: how RoIAlign counts pixels.
        mask_rois: most objects per picture that the mask loss looks at, drawn at random; None = all.
    """

    aligned: bool = False
    mask_rois: int | None = None

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: Targets | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Detections in evaluation mode, losses in training mode.

        Args:
            features: P2 … P6 by name, each (N, C, H, W).
            proposals: per picture, float32 (R_i, 4), xyxy in input pixels.
            image_shapes: per picture, (H, W) of its valid area.
            targets: per picture, see `MaskRCNN.forward`.
        """
        if self.training:
            assert targets is not None
            return [], self._losses(features, proposals, targets)
        return self._detect(features, proposals, image_shapes), {}

    def _losses(self, features: Any, proposals: Any, targets: Targets) -> dict[str, Tensor]:
        proposals, matched, labels, regression = self.select_training_samples(proposals, targets)
        positive = [self._some(torch.where(label > 0)[0]) for label in labels]
        objects = [p[rows] for p, rows in zip(proposals, positive, strict=True)]
        for_boxes, for_masks = self.box_roi_pool.forward_with(
            self.mask_roi_pool, features, proposals, objects
        )
        logits, deltas = self.box_predictor(self.box_head(for_boxes))
        loss_class, loss_box = fastrcnn_loss(logits.float(), deltas.float(), labels, regression)
        matched = [m[rows] for m, rows in zip(matched, positive, strict=True)]
        loss_mask = self._mask_loss(for_masks, objects, matched, targets)
        return {"loss_classifier": loss_class, "loss_box_reg": loss_box, "loss_mask": loss_mask}

    def _some(self, rows: Tensor) -> Tensor:
        """At most `mask_rois` of `rows`, in random order."""
        if self.mask_rois is None or len(rows) <= self.mask_rois:
            return rows
        return rows[torch.randperm(len(rows), device=rows.device)[: self.mask_rois]]

    def _mask_loss(
        self, pooled: Tensor, rois: list[Tensor], matched: list[Tensor], targets: Targets
    ) -> Tensor:
        logits = self.mask_predictor(self.mask_head(pooled))
        if len(logits) == 0:
            nothing: Tensor = logits.sum() * 0.0  # keeps the head in the graph
            return nothing
        wanted = [
            mask_targets(t["masks"], t["boxes"], r, m, logits.shape[-1], aligned=self.aligned)
            for t, r, m in zip(targets, rois, matched, strict=True)
        ]
        classes = torch.cat([t["labels"][m] for t, m in zip(targets, matched, strict=True)])
        chosen = logits[torch.arange(len(logits), device=logits.device), classes]
        loss: Tensor = F.binary_cross_entropy_with_logits(chosen.float(), torch.cat(wanted))
        return loss

    def _detect(self, features: Any, proposals: Any, shapes: Any) -> list[dict[str, Tensor]]:
        features = self.box_roi_pool.lay_out(features)
        pooled = self.box_head(self.box_roi_pool(features, proposals, shapes))
        logits, deltas = self.box_predictor(pooled)
        boxes, scores, labels = self.postprocess_detections(
            logits.float(), deltas.float(), proposals, shapes
        )
        mask_logits = self.mask_predictor(
            self.mask_head(self.mask_roi_pool(features, boxes, shapes))
        )
        masks = maskrcnn_inference(mask_logits.float(), labels)
        return [
            {"boxes": b, "scores": s, "labels": k, "masks": m[:, 0]}
            for b, s, k, m in zip(boxes, scores, labels, masks, strict=True)
        ]
