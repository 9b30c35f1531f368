"""From an upright RGB picture to the network's input: the conventions' first record, carried out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from segcli.errors import UsageError
from segcli.models.conventions import Preprocess


@dataclass(frozen=True, eq=False)
class PreparedPicture:
    """One picture, ready for the network.

    Attributes:
        tensor: float32 (3, h, w), resized and normalised.
        original_size: (H, W) of the upright picture in pixels.
    """

    tensor: Tensor
    original_size: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of the network's input before padding."""
        return int(self.tensor.shape[1]), int(self.tensor.shape[2])


def scale_for(size: tuple[int, int], preprocess: Preprocess) -> float:
    """The factor that brings the shorter side to min_size without the longer one exceeding max_size."""
    return min(preprocess.min_size / min(size), preprocess.max_size / max(size))


def resized_size(size: tuple[int, int], preprocess: Preprocess) -> tuple[int, int]:
    """(h, w) that `prepare` makes of a picture of (H, W) pixels, for what resizes elsewhere (a GPU)."""
    factor = max(scale_for(size, preprocess), 1.0 / min(size))
    return math.floor(size[0] * factor), math.floor(size[1] * factor)


def with_sizes(preprocess: Preprocess, min_size: int | None, max_size: int | None) -> Preprocess:
    """The model's sizes, unless the user gave others.

    Raises:
        UsageError: the longer side would be limited to less than the shorter one.
    """
    sizes = replace(
        preprocess,
        min_size=min_size or preprocess.min_size,
        max_size=max_size or preprocess.max_size,
    )
    if sizes.max_size < sizes.min_size:
        raise UsageError(
            f"--max-size {sizes.max_size} is less than --min-size {sizes.min_size}; give both"
        )
    return sizes


def prepare(
    image: NDArray[np.uint8], preprocess: Preprocess, *, scale: float | None = None
) -> PreparedPicture:
    """Normalise, then resize bilinearly without antialiasing, in that order and in float32.

    As torchvision's `GeneralizedRCNNTransform` does outside of scripting: the scale is a Python float, the new size is
    rounded down (torchvision/models/detection/transform.py).

    Args:
        image: uint8 (H, W, 3), RGB, upright.
        preprocess: sizes, mean and std.
        scale: instead of the factor that `preprocess` gives (scale jitter).
    """
    size = (int(image.shape[0]), int(image.shape[1]))
    factor = scale_for(size, preprocess) if scale is None else scale
    factor = max(factor, 1.0 / min(size))  # a 1 × 900 strip keeps one row
    pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float() / 255.0
    mean = torch.tensor(preprocess.mean)[:, None, None]
    std = torch.tensor(preprocess.std)[:, None, None]
    resized = F.interpolate(
        ((pixels - mean) / std)[None],
        scale_factor=factor,
        mode="bilinear",
        recompute_scale_factor=True,
        align_corners=False,
    )
    return PreparedPicture(resized[0], size)


def collate(tensors: Sequence[Tensor], pad_multiple: int) -> tuple[Tensor, list[tuple[int, int]]]:
    """Zero-pad pictures at the right and bottom to one batch.

    Returns:
        float32 (N, 3, H, W) with H and W multiples of `pad_multiple`, and each picture's own (h, w).
    """
    sizes = [(int(t.shape[1]), int(t.shape[2])) for t in tensors]
    height, width = (
        -(-max(side) // pad_multiple) * pad_multiple for side in zip(*sizes, strict=True)
    )
    batch = tensors[0].new_zeros((len(tensors), 3, height, width))
    for row, (tensor, (h, w)) in enumerate(zip(tensors, sizes, strict=True)):
        batch[row, :, :h, :w] = tensor
    return batch, sizes
