"""The two public functions and the choice of backend."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import roi_align as torchvision_roi_align

from segcli.models.conventions import LevelRule
from segcli.models.roi_align.levels import assign_levels
from segcli.models.roi_align.mode import Mode
from segcli.models.roi_align.reference import roi_align_reference

BACKENDS = ("auto", "torchvision", "reference")


def roi_align(
    features: Tensor,
    rois: Tensor,
    output_size: tuple[int, int],
    spatial_scale: float,
    *,
    sampling_ratio: int = 2,
    aligned: bool = False,
    mode: Mode = "avg",
    backend: str = "auto",
) -> Tensor:
    """Pool one feature map under each RoI.

    Args:
        features: (N, C, H, W), any memory format, float.
        rois: float32 (R, 5): picture index (−1 = padding row, gives zeros), x1, y1, x2, y2 in input pixels. An
            index beyond the last picture gives zeros too.
        output_size: (h, w) bins.
        spatial_scale: 1 / stride of the feature map.
        sampling_ratio: samples per bin and axis; 0 = one per covered cell.
        aligned: shift by half a pixel, so that pixel centres lie at .5.
        mode: `avg` or `max` over the samples of a bin.
        backend: `auto`, `torchvision` or `reference`.

    Returns:
        (R, C, h, w) in the features' dtype.

    Raises:
        ValueError: unknown backend, or one that cannot do what is asked.
    """
    chosen = choose_backend(backend, mode)
    if chosen == "reference":
        return roi_align_reference(
            features, rois, output_size, spatial_scale,
            sampling_ratio=sampling_ratio, aligned=aligned, mode=mode,
        )  # fmt: skip
    padding = (rois[:, 0] < 0) | (rois[:, 0] >= len(features))
    safe = torch.where(padding[:, None], rois.new_zeros(()), rois)
    # the operator wants both in one type; RoIs never lose precision, so 16-bit features go up
    wide = features if features.dtype == torch.float64 else features.float()
    pooled: Tensor = torchvision_roi_align(
        wide, safe.to(wide.dtype), output_size, spatial_scale, sampling_ratio, aligned
    )
    return pooled.masked_fill(padding[:, None, None, None], 0.0).to(features.dtype)


def roi_align_pyramid(
    features: Sequence[Tensor],
    rois: Tensor,
    output_size: tuple[int, int],
    spatial_scales: Sequence[float],
    *,
    level_rule: LevelRule,
    sampling_ratio: int = 2,
    aligned: bool = False,
    mode: Mode = "avg",
    backend: str = "auto",
) -> Tensor:
    """Pool each RoI from the pyramid level that fits its size.

    Args:
        features: one (N, C, H, W) per level, finest first.
        rois: float32 (R, 5), as in `roi_align`.
        output_size: (h, w) bins.
        spatial_scales: 1 / stride per level; powers of two, each half of the one before.
        level_rule: whose rounding assigns the level.
        sampling_ratio: as in `roi_align`.
        aligned: as in `roi_align`.
        mode: as in `roi_align`.
        backend: as in `roi_align`.

    Returns:
        (R, C, h, w) in the features' dtype.
    """
    first, last = (round(-math.log2(s)) for s in (spatial_scales[0], spatial_scales[-1]))
    levels = assign_levels(rois[:, 1:], first, last, level_rule)
    out = features[0].new_zeros((len(rois), features[0].shape[1], *output_size))
    for level, (plane, scale) in enumerate(zip(features, spatial_scales, strict=True)):
        rows = torch.where(levels == level)[0]
        pooled = roi_align(
            plane, rois[rows], output_size, scale,
            sampling_ratio=sampling_ratio, aligned=aligned, mode=mode, backend=backend,
        )  # fmt: skip
        out[rows] = pooled.to(out.dtype)
    return out


def choose_backend(backend: str, mode: Mode = "avg") -> str:
    """The backend that runs; `auto` is torchvision's operator where it can do what is asked.

    Raises:
        ValueError: unknown backend, or torchvision asked for `max`.
    """
    if backend not in BACKENDS:
        raise ValueError(f"RoIAlign backend {backend!r}: expected one of {', '.join(BACKENDS)}")
    if backend == "torchvision" and mode != "avg":
        raise ValueError("RoIAlign backend torchvision has no mode 'max'; use backend 'reference'")
    if backend == "auto":
        return "torchvision" if mode == "avg" else "reference"
    return backend
