"""RoIAlign as operators of torch's library, so that autograd, autocast and `torch.compile` know it.

`segcli::roi_align` pools one or several lists of RoIs from the same features, and `segcli::roi_align_backward` gives
the one gradient of them all. Under autocast they keep the features' type: 16-bit features are read as they are, and
RoIs are float32 always.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from segcli.models.conventions import LevelRule
from segcli.models.roi_align import gather
from segcli.models.roi_align.levels import area_thresholds, first_and_last_level
from segcli.models.roi_align.sampling import Mode, Sampling


def _sampling(
    scales: Sequence[float], level_rule: str, ratio: int, aligned: bool, mode: str
) -> Sampling:
    rule, how = cast("LevelRule", level_rule), cast("Mode", mode)
    thresholds = area_thresholds(*first_and_last_level(scales), rule) if len(scales) > 1 else ()
    return Sampling(tuple(scales), thresholds, ratio, aligned, how)


def _forward_of(backend: str) -> Callable[..., Tensor]:
    """Triton is imported only where it runs."""
    if backend == "gather":
        return gather.forward
    from segcli.models.roi_align import forward_kernel

    return forward_kernel.forward


def _backward_of(backend: str, deterministic: bool) -> Callable[..., list[Tensor]]:
    if backend == "gather":
        return gather.backward
    from segcli.models.roi_align import backward_atomic, backward_kernel

    return backward_kernel.backward if deterministic else backward_atomic.backward


@torch.library.custom_op("segcli::roi_align", mutates_args=())
def pool(
    features: Sequence[Tensor],
    rois: Sequence[Tensor],
    output_sizes: Sequence[int],
    scales: Sequence[float],
    level_rule: str,
    ratio: int,
    aligned: bool,
    mode: str,
    backend: str,
    deterministic: bool,
) -> list[Tensor]:
    """Pool lists of RoIs.

    Args:
        features: per level (N, C, H, W), any memory format; channels-last ones are not copied.
        rois: per pooling float32 (R, 5).
        output_sizes: h, w per pooling, one after the other.
        scales: 1 / stride per level.
        level_rule: see `area_thresholds`; not looked at for one level.
        ratio: samples per bin and axis, 0 = adaptive.
        aligned: see `roi_align`.
        mode: `avg` or `max`.
        backend: `triton` or `gather`.
        deterministic: which backward pass follows.

    Returns:
        Per pooling (R, C, h, w), channels-last.
    """
    del deterministic
    sampling = _sampling(scales, level_rule, ratio, aligned, mode)
    maps = [_rows(level) for level in features]
    forward = _forward_of(backend)
    with _on_device_of(features[0]):
        return [
            forward(maps, r.contiguous(), size, sampling).permute(0, 3, 1, 2)
            for r, size in zip(rois, _pairs(output_sizes), strict=True)
        ]


@pool.register_fake
def _(features: Any, rois: Any, output_sizes: Any, *_: Any) -> list[Tensor]:
    C = features[0].shape[1]
    return [
        features[0].new_empty((r.shape[0], h, w, C)).permute(0, 3, 1, 2)
        for r, (h, w) in zip(rois, _pairs(output_sizes), strict=True)
    ]


@torch.library.custom_op("segcli::roi_align_backward", mutates_args=())
def pool_backward(
    grads: Sequence[Tensor],
    rois: Sequence[Tensor],
    shapes: Sequence[int],
    dtype: torch.dtype,
    scales: Sequence[float],
    level_rule: str,
    ratio: int,
    aligned: bool,
    backend: str,
    deterministic: bool,
) -> list[Tensor]:
    """Gradient of `pool` in its features.

    Args:
        grads: per pooling (R, C, h, w).
        rois: per pooling float32 (R, 5).
        shapes: N, C, H, W per level, one after the other.
        dtype: of the features.
        scales: as in `pool`.
        level_rule: as in `pool`.
        ratio: as in `pool`.
        aligned: as in `pool`.
        backend: as in `pool`.
        deterministic: for `triton`: gathered by tiles, or added atomically.

    Returns:
        Per level (N, C, H, W), channels-last.
    """
    sampling = _sampling(scales, level_rule, ratio, aligned, "avg")
    backward = _backward_of(backend, deterministic)
    rows, sizes = [_rows(g) for g in grads], [(n, h, w, c) for n, c, h, w in _fours(shapes)]
    with _on_device_of(grads[0]):
        maps = backward(rows, [r.contiguous() for r in rois], sizes, dtype, sampling)
    return [grad.permute(0, 3, 1, 2) for grad in maps]


@pool_backward.register_fake
def _(grads: Any, rois: Any, shapes: Any, dtype: Any, *_: Any) -> list[Tensor]:
    del rois
    return [
        grads[0].new_empty((n, h, w, c), dtype=dtype).permute(0, 3, 1, 2)
        for n, c, h, w in _fours(shapes)
    ]


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    del output
    features, rois, _, scales, level_rule, ratio, aligned, mode, backend, deterministic = inputs
    if mode != "avg":
        raise ValueError(
            f"RoIAlign mode {mode!r} has no gradient in backend {backend}; use backend 'reference'"
        )
    ctx.save_for_backward(*rois)
    ctx.shapes = [size for level in features for size in level.shape]
    ctx.levels, ctx.dtype = len(features), features[0].dtype
    ctx.options = (scales, level_rule, ratio, aligned, backend, deterministic)


def _gradient(ctx: Any, grads: Any) -> tuple[Any, ...]:
    rois = ctx.saved_tensors
    used = [(g, r) for g, r in zip(grads, rois, strict=True) if g is not None]
    maps: list[Tensor | None] = [None] * ctx.levels
    if used:
        maps = list(
            pool_backward(
                [g for g, _ in used], [r for _, r in used], ctx.shapes, ctx.dtype, *ctx.options
            )
        )
    return (maps, [None] * len(rois), *(None,) * 8)


pool.register_autograd(_gradient, setup_context=_save)


def _on_device_of(tensor: Tensor) -> contextlib.AbstractContextManager[object]:
    """Triton launches on the current device, which need not be the tensors'."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


def _rows(maps: Tensor) -> Tensor:
    """(N, C, H, W) as contiguous (N, H, W, C); no copy of what is channels-last already."""
    return maps.permute(0, 2, 3, 1).contiguous()


def _pairs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _fours(numbers: Sequence[int]) -> list[tuple[int, int, int, int]]:
    return list(zip(numbers[::4], numbers[1::4], numbers[2::4], numbers[3::4], strict=True))
