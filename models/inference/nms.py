"""Greedy non-maximum suppression of many sets of boxes at once, with fixed shapes: nothing waits for the device.

What is kept is what `torchvision.ops.nms` keeps on a CPU: the same float32 arithmetic, and boxes of equal score in
the order in which they stand. torchvision's operator takes one set, returns as many rows as it keeps, and so has to
wait for the GPU once per set (pytorch/vision#8766); `batched_nms` makes one set of many by shifting boxes, which
rounds them.
"""

from __future__ import annotations

import struct

import torch
from torch import Tensor

from segcli.models.roi_align.backends import interpreting


def suppress(boxes: Tensor, valid: Tensor, overlap: float, labels: Tensor | None = None) -> Tensor:
    """Which boxes remain when each, from the best on, removes what overlaps it by more than `overlap`.

    On a GPU by Triton, elsewhere by torch's own operations, which is slow.

    Args:
        boxes: float32 (G, K, 4), xyxy; the sets, each in falling order of score.
        valid: bool (G, K); the others neither remain nor remove.
        overlap: intersection over union, exclusive, as in torchvision.
        labels: int (G, K); only boxes of equal label remove each other. None = all.

    Returns:
        bool (G, K).
    """
    limit = float32_below(overlap)
    if boxes.numel() == 0:
        return valid.clone()
    if boxes.is_cuda or interpreting():
        from segcli.models.inference import nms_kernel

        return nms_kernel.suppress(boxes, valid, limit, labels)
    return _by_torch(boxes, valid, limit, labels)


def float32_below(number: float) -> float:
    """The largest float32 that is not above `number`, which is not negative.

    torchvision compares a float32 overlap with the threshold in float64; compared with this one in float32, the answer
    is the same.
    """
    rounded: float = struct.unpack("<f", struct.pack("<f", number))[0]
    if rounded > number:
        (bits,) = struct.unpack("<i", struct.pack("<f", rounded))
        (rounded,) = struct.unpack("<f", struct.pack("<i", bits - 1))
    return rounded


def _by_torch(boxes: Tensor, valid: Tensor, limit: float, labels: Tensor | None) -> Tensor:
    """K steps for all sets together."""
    removes = overlaps(boxes) > limit
    if labels is not None:
        removes &= labels[:, :, None] == labels[:, None, :]
    alive = valid.clone()
    later = torch.arange(boxes.shape[1], device=boxes.device)
    for i in range(boxes.shape[1]):
        alive &= ~(removes[:, i] & alive[:, i : i + 1] & (later > i))
    return alive


def overlaps(boxes: Tensor) -> Tensor:
    """Intersection over union within each set, float32 (G, K, K); rounded as in torchvision's operator."""
    x1, y1, x2, y2 = boxes.unbind(2)
    area = (x2 - x1) * (y2 - y1)
    width = torch.minimum(x2[:, :, None], x2[:, None]) - torch.maximum(x1[:, :, None], x1[:, None])
    height = torch.minimum(y2[:, :, None], y2[:, None]) - torch.maximum(y1[:, :, None], y1[:, None])
    inside = width.clamp(min=0) * height.clamp(min=0)
    return inside / (area[:, :, None] + area[:, None] - inside)
