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


def resized_size(
    size: tuple[int, int], preprocess: Preprocess, scale: float | None = None
) -> tuple[int, int]:
    """(h, w) that `prepare` makes of a picture of (H, W) pixels; never less than one pixel.

    Args:
        size: of the picture.
        preprocess: sizes and how they are rounded.
        scale: instead of the factor that `preprocess` gives.

    Source: torchvision/models/detection/transform.py; detectron2/data/transforms/augmentation_impl.py,
    `ResizeShortestEdge.get_output_shape`; mmcv/image/geometric.py, `rescale_size`.
    """
    if preprocess.size_rounding == "floor":
        factor = scale_for(size, preprocess) if scale is None else scale
        factor = max(factor, 1.0 / min(size))  # a 1 × 900 strip keeps one row
        return math.floor(size[0] * factor), math.floor(size[1] * factor)
    if preprocess.size_rounding == "half_up_in_steps" and scale is None:
        height, width = _in_steps(size, preprocess)
    else:
        factor = scale_for(size, preprocess) if scale is None else scale
        height, width = size[0] * factor, size[1] * factor
    return max(int(height + 0.5), 1), max(int(width + 0.5), 1)


def _in_steps(size: tuple[int, int], preprocess: Preprocess) -> tuple[float, float]:
    """Sides before rounding: first by the shorter side, then, where that is too long, by the longer."""
    shortest = float(preprocess.min_size)
    factor = shortest / min(size)
    height, width = (
        (shortest, factor * size[1]) if size[0] < size[1] else (factor * size[0], shortest)
    )
    if max(height, width) > preprocess.max_size:
        factor = preprocess.max_size / max(height, width)
        height, width = height * factor, width * factor
    return height, width


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
    """Resize and normalise as the conventions say, to the bit as the family's own code does.

    Args:
        image: uint8 (H, W, 3), RGB, upright.
        preprocess: sizes, how pixels are resized, channel order, mean and std.
        scale: instead of the factor that `preprocess` gives (scale jitter).

    Source: torchvision/models/detection/transform.py outside of scripting (the scale is a Python float);
    detectron2/data/transforms/transform.py, `ResizeTransform`; mmcv/image/geometric.py, `imresize`.
    """
    size = (int(image.shape[0]), int(image.shape[1]))
    if preprocess.resize == "torch_bilinear":
        factor = scale_for(size, preprocess) if scale is None else scale
        return PreparedPicture(_resized_floats(image, preprocess, factor), size)
    height, width = resized_size(size, preprocess, scale)
    if preprocess.resize == "pil_bilinear":
        small = _resized_by_pillow(image, height, width)
    else:
        small = _resized_by_cv2(image, height, width)
    return PreparedPicture(_normalized(_planes(small, preprocess), preprocess), size)


def _resized_floats(image: NDArray[np.uint8], preprocess: Preprocess, factor: float) -> Tensor:
    """Bilinear in float32 without antialiasing, after or before mean and std."""
    size = (int(image.shape[0]), int(image.shape[1]))
    pixels = _planes(image, preprocess)
    if preprocess.normalize_first:
        pixels = _normalized(pixels, preprocess)
    if preprocess.size_rounding == "floor":
        small = F.interpolate(
            pixels[None],
            scale_factor=max(factor, 1.0 / min(size)),  # a 1 × 900 strip keeps one row
            mode="bilinear",
            recompute_scale_factor=True,
            align_corners=False,
        )[0]
    else:
        sides = resized_size(size, preprocess, factor)
        small = F.interpolate(pixels[None], size=sides, mode="bilinear", align_corners=False)[0]
    return small if preprocess.normalize_first else _normalized(small, preprocess)


def _resized_by_pillow(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    from PIL import Image

    small = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(small)


def _resized_by_cv2(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    import cv2

    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(small, np.uint8)


def _planes(image: NDArray[np.uint8], preprocess: Preprocess) -> Tensor:
    """float32 (3, h, w) of uint8 (h, w, 3) RGB, in the network's channel order, divided."""
    if preprocess.channel_order == "bgr":
        image = image[:, :, ::-1]
    pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float()
    return pixels if preprocess.divisor == 1.0 else pixels / preprocess.divisor


def _normalized(pixels: Tensor, preprocess: Preprocess) -> Tensor:
    mean = torch.tensor(preprocess.mean)[:, None, None]
    std = torch.tensor(preprocess.std)[:, None, None]
    return (pixels - mean) / std


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
