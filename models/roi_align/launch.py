"""Launch parameters of the Triton kernels: a small table and no search at run time.

A search would need warm-up launches in every process, choose differently from run to run, and change the order of
sums with it. `scripts/gpu_check.sh` times the neighbours of these choices on a GPU and prints what would be faster.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Launch:
    """Block sizes of a launch.

    Attributes:
        bins: bins of one row that a program makes; a power of two.
        channels: channels that a program makes; a power of two.
        warps: of 32 threads.
        registers: most per thread; told a limit that fits, the assembler does not guess a smaller one and spill.
    """

    bins: int
    channels: int
    warps: int
    registers: int


def forward_launch(width: int, channels: int, dtype: torch.dtype, *, plain: bool) -> Launch:
    """For a row of `width` bins, 7 as one block of 8: two 16-byte loads per thread and cell.

    A `plain` pooling, of a fixed number of samples and their average, does with 64 registers, so that 1,024 threads
    are at work on a multiprocessor.
    """
    bins = min(_power_of_two(width), 8)
    block = min(_power_of_two(channels), 256)
    warps = bins * block * dtype.itemsize // (32 * 2 * 16)
    return Launch(bins, block, max(1, warps), 64 if plain else 128)


def _power_of_two(number: int) -> int:
    """The smallest power of two that is at least `number`."""
    return 1 << max(number - 1, 0).bit_length()


@dataclass(frozen=True)
class BackwardLaunch:
    """Block sizes of the deterministic backward.

    Attributes:
        tile: cells of a tile along each axis; a power of two.
        channels: channels that a program makes; a power of two.
        warps: of 32 threads.
        chunk: the longest list of RoIs that one program takes, doubled while slots are too few.
        slots: chunks of cut lists for which there is scratch memory, float32 (slots, tile, tile, C).
    """

    tile: int
    channels: int
    warps: int
    chunk: int
    slots: int


def backward_launch(channels: int, rois: int) -> BackwardLaunch:
    """For `rois` RoIs of all sets: one channel of all 64 cells per thread, whose weights are then the warp's own.

    No slots where no list can be longer than a chunk.
    """
    block, chunk = min(_power_of_two(channels), 128), 32
    return BackwardLaunch(8, block, max(1, block // 32), chunk, 512 if rois > chunk else 0)


def atomic_launch(width: int, channels: int) -> Launch:
    """For a row of `width` bins: as the forward, with four times the values per thread that one addition takes."""
    bins, block = min(_power_of_two(width), 8), min(_power_of_two(channels), 256)
    return Launch(bins, block, max(1, bins * block // 512), 255)
