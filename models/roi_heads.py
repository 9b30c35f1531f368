"""torchvision's RoI heads by our conventions; parameters and names are torchvision's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection import roi_heads as torchvision_roi_heads

from segcli.models.postprocess import Found, SelectionRules, select_detections


class RoIHeads(torchvision_roi_heads.RoIHeads):  # type: ignore[misc]  # torchvision has no types
    """Box and mask branch (He et al. 2017).

    Attributes:
        rules: by which detections are chosen.
        aligned: how RoIAlign counts pixels.
        mask_rois: most objects per picture that the mask loss looks at, drawn at random; None = all.
    """

    rules: SelectionRules
    aligned: bool = False
    mask_rois: int | None = None

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Detections; `segcli.models.training` has the losses.

        Args:
            features: P2 … P6 by name, each (N, C, H, W).
            proposals: per picture, float32 (R_i, 4), xyxy in input pixels.
            image_shapes: per picture, (H, W) of its valid area.
            targets: torchvision's signature.
        """
        del targets
        return self._detect(features, proposals, image_shapes), {}

    def _detect(self, features: Any, proposals: Any, shapes: Any) -> list[dict[str, Tensor]]:
        features = self.box_roi_pool.lay_out(features)
        pooled = self.box_head(self.box_roi_pool(features, proposals, shapes))
        logits, deltas = self.box_predictor(pooled)
        found = self._select(logits.float(), deltas.float(), proposals, shapes)
        boxes, labels = [b for b, _, _ in found], [k for _, _, k in found]
        mask_logits = self.mask_predictor(
            self.mask_head(self.mask_roi_pool(features, boxes, shapes))
        )
        masks = torch.split(
            self._own_masks(mask_logits.float(), torch.cat(labels)), [len(b) for b in boxes]
        )
        return [
            {"boxes": b, "scores": s, "labels": k, "masks": m}
            for (b, s, k), m in zip(found, masks, strict=True)
        ]

    def _select(
        self, logits: Tensor, deltas: Tensor, proposals: list[Tensor], shapes: Any
    ) -> list[Found]:
        counts = [len(p) for p in proposals]
        rows = torch.split(logits, counts), torch.split(deltas, counts)
        pictures = zip(*rows, proposals, shapes, strict=True)
        limits = {"score": self.score_thresh, "most": self.detections_per_img}
        return [select_detections(*picture, self.rules, **limits) for picture in pictures]

    def _own_masks(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Probabilities float32 (D, 2s, 2s), each of its box's own class (from 1)."""
        rows = self.rules.numerics.class_layout.mask_row(labels - 1)
        return logits[torch.arange(len(rows), device=rows.device), rows].sigmoid()
