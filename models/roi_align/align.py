"""The public functions: one level, a pyramid, and several poolings of one pyramid.

All are differentiable once, and in the features only: boxes get no gradient, as in the papers' code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import roi_align as torchvision_roi_align

from segcli.models.conventions import LevelRule
from segcli.models.roi_align.arguments import check_arguments
from segcli.models.roi_align.backends import choose_backend
from segcli.models.roi_align.levels import assign_levels, first_and_last_level
from segcli.models.roi_align.ops import pool
from segcli.models.roi_align.reference import roi_align_reference
from segcli.models.roi_align.sampling import Mode

_OPERATORS = ("triton", "gather")


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
    deterministic: bool = True,
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
        mode: `avg` or `max` over the samples of a bin. Only the reference has a gradient for `max`.
        backend: one of `BACKENDS`; `auto` is Triton on CUDA, the gather on a CPU, torchvision's operator elsewhere, and
            the reference for `max` where Triton is not, or where the features want a gradient.
        deterministic: with Triton, a backward pass that gives the same bits in every run; else one by atomic adds.
            Other backends are what they are: the gather is deterministic, torchvision's operator is not on CUDA.

    Returns:
        (R, C, h, w) in the features' dtype; channels-last with the backends `triton` and `gather`.

    Raises:
        ValueError: unknown backend, one that cannot do here what is asked, or tensors that do not fit.
    """
    check_arguments([features], [rois], [output_size], [spatial_scale], sampling_ratio)
    chosen = _chosen(backend, [features], mode)
    if chosen in _OPERATORS:
        one: list[Tensor] = pool(
            [features], [rois.float()], list(output_size), [spatial_scale], "",
            sampling_ratio, aligned, mode, chosen, deterministic,
        )  # fmt: skip
        return one[0]
    options = (rois.float(), output_size, spatial_scale, sampling_ratio, aligned)
    if len(rois) == 0 or features.numel() == 0:
        nothing = features.flatten()[:0].sum()  # 0, and keeps the features in the graph
        return nothing.expand(len(rois), features.shape[1], *output_size).to(features.dtype)
    if chosen == "reference":
        return roi_align_reference(features, *options, mode)
    return _by_torchvision(features, *options)


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
    deterministic: bool = True,
) -> Tensor:
    """Pool each RoI from the pyramid level that fits its size.

    Args:
        features: one (N, C, H, W) per level, finest first; at most four.
        rois: float32 (R, 5), as in `roi_align`.
        output_size: (h, w) bins.
        spatial_scales: 1 / stride per level; powers of two, each half of the one before.
        level_rule: whose rounding assigns the level.
        sampling_ratio: as in `roi_align`.
        aligned: as in `roi_align`.
        mode: as in `roi_align`.
        backend: as in `roi_align`.
        deterministic: as in `roi_align`.

    Returns:
        (R, C, h, w) in the features' dtype.

    Raises:
        ValueError: as in `roi_align`.
    """
    return roi_align_pyramid_shared(
        features, [rois], [output_size], spatial_scales,
        level_rule=level_rule, sampling_ratio=sampling_ratio, aligned=aligned, mode=mode,
        backend=backend, deterministic=deterministic,
    )[0]  # fmt: skip


def roi_align_pyramid_shared(
    features: Sequence[Tensor],
    rois: Sequence[Tensor],
    output_sizes: Sequence[tuple[int, int]],
    spatial_scales: Sequence[float],
    *,
    level_rule: LevelRule,
    sampling_ratio: int = 2,
    aligned: bool = False,
    mode: Mode = "avg",
    backend: str = "auto",
    deterministic: bool = True,
) -> list[Tensor]:
    """Pool several lists of RoIs, each to its own size, from the same pyramid.

    As `roi_align_pyramid` for each; but the backward pass writes the features' gradient once for all of them, where
    two calls would write two and add them.

    Args:
        features: as in `roi_align_pyramid`.
        rois: per pooling float32 (R, 5).
        output_sizes: per pooling (h, w) bins.
        spatial_scales: as in `roi_align_pyramid`.
        level_rule: as in `roi_align_pyramid`.
        sampling_ratio: as in `roi_align`.
        aligned: as in `roi_align`.
        mode: as in `roi_align`.
        backend: as in `roi_align`.
        deterministic: as in `roi_align`.

    Returns:
        Per pooling (R, C, h, w).
    """
    check_arguments(features, rois, output_sizes, spatial_scales, sampling_ratio)
    chosen = _chosen(backend, features, mode)
    rois = [boxes.float() for boxes in rois]
    if chosen in _OPERATORS:
        sizes = [side for size in output_sizes for side in size]
        found: list[Tensor] = pool(
            list(features), rois, sizes, list(spatial_scales), level_rule,
            sampling_ratio, aligned, mode, chosen, deterministic,
        )  # fmt: skip
        return found
    first, last = first_and_last_level(spatial_scales)
    results = []
    for boxes, size in zip(rois, output_sizes, strict=True):
        levels = assign_levels(boxes[:, 1:], first, last, level_rule)
        out = features[0].new_zeros((len(boxes), features[0].shape[1], *size))
        for level, (plane, scale) in enumerate(zip(features, spatial_scales, strict=True)):
            rows = torch.where(levels == level)[0]
            pooled = roi_align(
                plane, boxes[rows], size, scale,
                sampling_ratio=sampling_ratio, aligned=aligned, mode=mode, backend=chosen,
            )  # fmt: skip
            out[rows] = pooled.to(out.dtype)
        results.append(out)
    return results


def _chosen(backend: str, features: Sequence[Tensor], mode: Mode) -> str:
    """The backend for these features; `auto` looks at whether they want a gradient, too."""
    chosen = choose_backend(backend, features[0].device, mode, features[0].dtype)
    wanted = torch.is_grad_enabled() and any(level.requires_grad for level in features)
    return "reference" if backend == "auto" and mode == "max" and wanted else chosen


def _by_torchvision(
    features: Tensor,
    rois: Tensor,
    output_size: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """Pool by torchvision's operator, which knows no padding rows."""
    padding = ~((rois[:, 0] >= 0) & (rois[:, 0] < len(features)))
    safe = torch.where(padding[:, None], rois.new_zeros(()), rois)
    # the operator wants both in one type; RoIs never lose precision, so 16-bit features go up
    wide = features if features.dtype == torch.float64 else features.float()
    pooled: Tensor = torchvision_roi_align(
        wide, safe.to(wide.dtype), output_size, spatial_scale, sampling_ratio, aligned
    )
    return pooled.masked_fill(padding[:, None, None, None], 0.0).to(features.dtype)
