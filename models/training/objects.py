"""The objects of a batch in one list, whatever picture they are of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from segcli.models.training.roi_losses import RoIs

Targets = list[dict[str, Tensor]]


@dataclass(frozen=True, eq=False)
class Objects:
    """All objects of all pictures, and one more, that of RoIs in pictures without any.

    Attributes:
        boxes: float32 (G + 1, 4), xyxy in input pixels.
        labels: int64 (G + 1,), 0-based.
        masks: uint8 (G + 1, 58, 58), patches.
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor

    @classmethod
    def of(cls, targets: Targets) -> Objects:
        """From `training_losses`' targets, whose labels count from 1."""
        boxes, labels, masks = (
            torch.cat([t[name] for t in targets]) for name in ("boxes", "labels", "masks")
        )
        return cls(
            F.pad(boxes.float(), (0, 0, 0, 1)),
            F.pad(labels - 1, (0, 1)),
            F.pad(masks, (0, 0, 0, 0, 0, 1)),
        )


def allowed_classes(targets: Targets, rois: RoIs) -> Tensor | None:
    """Classes that each RoI's dataset knows, bool (R, K + 1), background first; None where no target says."""
    known = [t.get("classes") for t in targets]
    width = next((len(k) for k in known if k is not None), None)
    if width is None:
        return None
    every = torch.ones(width, dtype=torch.bool, device=rois.picture.device)
    return torch.stack([every if k is None else k for k in known])[rois.picture]
