"""Batches side by side on a CPU: small networks' many short steps leave cores idle when all work on one batch."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import torch

from segcli.models import ARCHITECTURES

FEWEST_PICTURES = 50  # a job shorter than this gains less than it takes to think about
_SMALL = 128  # channels of the pyramid; wider networks keep all cores busy with one batch
_MOST = 4  # each lane has the activations of a batch in memory

_here = threading.local()


def lanes_for(architecture: str, pictures: int, threads: int, recorded: Mapping[str, Any]) -> int:
    """How many batches are predicted side by side, each with its share of torch's threads.

    Args:
        architecture: a name in `ARCHITECTURES`.
        pictures: of the job.
        threads: torch's.
        recorded: `resolved` of a job that goes on, whose choice holds: sums depend on the number of threads.
    """
    if recorded:
        return int(recorded.get("lanes", 1))
    small = ARCHITECTURES[architecture].fpn_channels <= _SMALL
    return min(threads, _MOST) if small and pictures >= FEWEST_PICTURES else 1


def use_threads(count: int) -> None:
    """Have torch use so many threads for what the calling thread asks of it; other threads keep theirs."""
    if getattr(_here, "count", None) != count:
        torch.set_num_threads(count)
        _here.count = count
