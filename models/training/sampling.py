"""Random samples of foreground and background (Girshick 2015, section 2.3), a picture's own whatever its batch.

torchvision permutes the rows that it found, whose number the host must know. Here every row draws a number and the
highest are taken: the same distribution, and shapes that never depend on what is found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

FOREGROUND, BACKGROUND, IGNORED = 1, 0, -1


@dataclass(frozen=True, eq=False)
class Sample:
    """Rows of one picture that were drawn.

    Attributes:
        rows: int64 (S,), foreground first, in random order.
        foreground: bool (S,).
        valid: bool (S,); on a CPU all are, on a GPU empty slots stand at the end.
    """

    rows: Tensor
    foreground: Tensor
    valid: Tensor


def generators(
    keys: Sequence[int] | None, pictures: int, device: torch.device
) -> list[torch.Generator]:
    """One source of random numbers per picture.

    Args:
        keys: per picture; None = drawn from torch's own generator, the CPU's.
        pictures: how many.
        device: where the numbers are wanted; they differ between kinds of devices.
    """
    if keys is None:
        keys = torch.randint(2**62, (pictures,), device="cpu").tolist()
    assert keys is not None
    return [torch.Generator(device).manual_seed(int(key) % 2**63) for key in keys]


def draw(kinds: Tensor, size: int, foreground_share: float, generator: torch.Generator) -> Sample:
    """At most `size` rows, at most `foreground_share` of them foreground, background for the rest.

    Args:
        kinds: int8 (M,): `FOREGROUND`, `BACKGROUND` or `IGNORED`.
        size: most rows.
        foreground_share: 0..1.
        generator: of the kinds' device.
    """
    number = torch.rand(len(kinds), generator=generator, device=kinds.device)
    most = min(int(size * foreground_share), len(kinds))
    best, rows = torch.where(kinds == FOREGROUND, number, -1.0).topk(most)
    priority = torch.where(kinds == BACKGROUND, number, -1.0)
    # drawn foreground comes before all background; a row that was not drawn stays what it is
    priority.index_copy_(0, rows, torch.where(best >= 0, best + 2.0, priority[rows]))
    best, rows = priority.topk(min(size, len(kinds)))
    valid = best >= 0
    if kinds.device.type == "cpu":
        rows, best, valid = rows[valid], best[valid], valid[valid]
    return Sample(rows, best >= 2.0, valid)
