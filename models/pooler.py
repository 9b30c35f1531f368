"""RoIAlign over the pyramid as a module that fits into torchvision's RoI heads."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign

from segcli.models.conventions import Numerics
from segcli.models.roi_align import choose_backend, roi_align_pyramid_shared

_LEVELS = ("0", "1", "2", "3")
_SCALES = (1 / 4, 1 / 8, 1 / 16, 1 / 32)


class PyramidRoIAlign(MultiScaleRoIAlign):  # type: ignore[misc]  # torchvision has no types
    """Pools P2 … P5 at fixed strides (torchvision infers them from the first picture and keeps them: vision#3747).

    Takes the place of torchvision's `MultiScaleRoIAlign` in its R-CNNs with a pyramid of these four levels, and has no
    state either.

    Args:
        output_size: bins per side.
        numerics: alignment, samples and level rule.
        backend: see `segcli.models.roi_align`.
        deterministic: of the backward pass on a GPU.
    """

    def __init__(
        self,
        output_size: int,
        numerics: Numerics,
        backend: str = "auto",
        *,
        deterministic: bool = True,
    ) -> None:
        super().__init__(list(_LEVELS), output_size, numerics.roi_sampling_ratio)
        self.numerics = numerics
        self.backend = backend
        self.deterministic = deterministic

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
        return self._pool([x[name] for name in _LEVELS], [_rois(boxes)], [self.output_size])[0]

    def lay_out(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        """The pyramid in the layout that the backend reads, so that a second pooling need not change it again."""
        level = x[_LEVELS[0]]
        if choose_backend(self.backend, level.device, dtype=level.dtype) == "torchvision":
            return x
        return {
            name: level.contiguous(memory_format=torch.channels_last) for name, level in x.items()
        }

    def pool_tables(
        self, other: PyramidRoIAlign, levels: list[Tensor], rois: Tensor, others: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Pool `rois` to this size and `others` to the other pooler's, with one gradient buffer for both.

        Args:
            other: a pooler that differs from this one in `output_size` only.
            levels: P2 … P5, each (N, C, H, W).
            rois: float32 (R, 5), see `roi_align`.
            others: likewise, what `other` pools.

        Raises:
            ValueError: the two differ in more than their size.
        """
        mine_of = (self.numerics, self.backend, self.deterministic)
        if mine_of != (other.numerics, other.backend, other.deterministic):
            raise ValueError("two poolers that pool together differ in more than their output size")
        mine, its = self._pool(levels, [rois, others], [self.output_size, other.output_size])
        return mine, its

    def _pool(
        self, levels: list[Tensor], rois: list[Tensor], sizes: list[tuple[int, int]]
    ) -> list[Tensor]:
        return roi_align_pyramid_shared(
            levels,
            rois,
            sizes,
            _SCALES,
            level_rule=self.numerics.level_rule,
            sampling_ratio=self.numerics.roi_sampling_ratio,
            aligned=self.numerics.roi_aligned,
            backend=self.backend,
            deterministic=self.deterministic,
        )


def _rois(boxes: list[Tensor]) -> Tensor:
    """float32 (ΣR_i, 5): index of the picture, then the box."""
    index = [torch.full_like(b[:, :1], i) for i, b in enumerate(boxes)]
    return torch.cat((torch.cat(index), torch.cat(boxes)), dim=1).float()
