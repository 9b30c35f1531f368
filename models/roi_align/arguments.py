"""What the public functions refuse, before any backend sees it: all backends take and refuse the same."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from segcli.models.roi_align.sampling import MAX_LEVELS


def check_arguments(
    features: Sequence[Tensor],
    rois: Sequence[Tensor],
    output_sizes: Sequence[tuple[int, int]],
    scales: Sequence[float],
    ratio: int,
) -> None:
    """Look at shapes, types and devices; never into a tensor, so nothing waits for a GPU.

    Args:
        features: per level, expected (N, C, H, W).
        rois: per pooling, expected (R, 5).
        output_sizes: per pooling.
        scales: per level.
        ratio: samples per bin and axis.

    Raises:
        ValueError: they do not fit together; with what was found and what was expected.
    """
    if not 1 <= len(features) <= MAX_LEVELS or len(features) != len(scales):
        raise ValueError(
            f"{len(features)} feature maps and {len(scales)} scales, expected one each of 1 to {MAX_LEVELS} levels"
        )
    _check_maps(features)
    _check_scales(scales)
    for boxes in rois:
        if boxes.dim() != 2 or boxes.shape[1] != 5:
            raise ValueError(
                f"RoIs of shape {tuple(boxes.shape)}, expected (R, 5): picture, x1, y1, x2, y2"
            )
        if boxes.device != features[0].device:
            raise ValueError(f"RoIs on {boxes.device}, features on {features[0].device}")
    for size in output_sizes:
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f"output size {tuple(size)}, expected (h, w) of at least 1 bin each")
    if ratio < 0:
        raise ValueError(f"sampling ratio {ratio}, expected 0 (adaptive) or more")


def _check_maps(features: Sequence[Tensor]) -> None:
    for level in features:
        if level.dim() != 4 or not level.is_floating_point():
            raise ValueError(
                f"features of shape {tuple(level.shape)} and type {level.dtype}, expected (N, C, H, W) of a float type"
            )
    for what, found in (
        ("pictures", {level.shape[0] for level in features}),
        ("channels", {level.shape[1] for level in features}),
        ("type", {level.dtype for level in features}),
        ("device", {level.device for level in features}),
    ):
        if len(found) > 1:
            raise ValueError(
                f"feature maps that differ in {what} ({', '.join(sorted(map(str, found)))}), expected one"
            )


def _check_scales(scales: Sequence[float]) -> None:
    """One level may have any scale; a pyramid's are powers of two, each half of the one before."""
    for i, scale in enumerate(scales):
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"spatial scale {scale}, expected a positive number")
        halved = scale == scales[0] / 2**i and math.frexp(scale)[0] == 0.5
        if len(scales) > 1 and not halved:
            raise ValueError(
                f"spatial scales {tuple(scales)}, expected powers of two, each half of the one before"
            )
