"""RoIAlign over the pyramid as a module that fits into torchvision's RoI heads."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign

from segcli.models.conventions import Numerics
from segcli.models.roi_align import roi_align_pyramid

_LEVELS = ("0", "1", "2", "3")
_SCALES = (1 / 4, 1 / 8, 1 / 16, 1 / 32)


class PyramidRoIAlign(MultiScaleRoIAlign):  # type: ignore[misc]  # torchvision has no types
    """Pools P2 … P5 at fixed strides (torchvision infers them from the first picture and keeps them: vision#3747)."""

    def __init__(self, output_size: int, numerics: Numerics, backend: str = "auto") -> None:
        super().__init__(list(_LEVELS), output_size, numerics.roi_sampling_ratio)
        self.numerics = numerics
        self.backend = backend

    def forward(
        self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]
    ) -> Tensor:
        """Pool every box of every picture.

        Args:
            x: P2 … P6 by name, each (N, C, H, W).
            boxes: per picture, float32 (R_i, 4), xyxy in input pixels.
            image_shapes: not needed; torchvision's signature.

        Returns:
            (ΣR_i, C, size, size).
        """
        del image_shapes
        index = [torch.full_like(b[:, :1], i) for i, b in enumerate(boxes)]
        rois = torch.cat((torch.cat(index), torch.cat(boxes)), dim=1).float()
        pooled: Tensor = roi_align_pyramid(
            [x[name] for name in _LEVELS],
            rois,
            self.output_size,
            _SCALES,
            level_rule=self.numerics.level_rule,
            sampling_ratio=self.numerics.roi_sampling_ratio,
            aligned=self.numerics.roi_aligned,
            backend=self.backend,
        )
        return pooled
