"""The best of many candidates, in an order that does not depend on the device."""

from __future__ import annotations

import torch
from torch import Tensor


def ranked(scores: Tensor, valid: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The `count` best valid candidates of each row, best first, equal ones in the order in which they stand.

    As a stable sort would give them; `Tensor.topk` alone leaves open which of several equal ones it takes.

    Args:
        scores: float32 (N, K), not negative where valid.
        valid: bool (N, K).
        count: at most K.

    Returns:
        int64 (N, count) columns, float32 (N, count) scores, and bool (N, count): fewer than `count` may be valid, and
        the others stand at the end with some column and the score −1.
    """
    marked = torch.where(valid, scores, -1.0)
    # the bits of numbers that are not negative are ordered as they are; the column makes every key different
    keys = marked.view(torch.int32).to(torch.int64) << 32
    keys = keys - torch.arange(scores.shape[1], device=scores.device)
    columns = keys.topk(count, dim=1)[1]
    best = marked.gather(1, columns)
    return columns, best, best >= 0


def first_of(chosen: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The first `count` chosen columns of each row.

    Args:
        chosen: bool (N, K).
        count: at most K.

    Returns:
        int64 (N, count) columns, and bool (N, count): false where a row has fewer.
    """
    K = chosen.shape[1]
    left = torch.where(chosen, torch.arange(K, 0, -1, device=chosen.device), 0)
    found, columns = left.topk(count, dim=1)
    return columns, found > 0


def rows_at(values: Tensor, columns: Tensor) -> Tensor:
    """Of (N, K, D) values those at int64 (N, M) columns: (N, M, D)."""
    return values.gather(1, columns[:, :, None].expand(-1, -1, values.shape[2]))
