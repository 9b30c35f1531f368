"""`--compile` in training: when it can be had."""

from __future__ import annotations

from typing import Any

import torch

from segcli.config import TrainConfig
from segcli.errors import UsageError
from segcli.prediction.compiled import why_not


def choose_compile(config: TrainConfig, saved: dict[str, Any] | None, device: torch.device) -> bool:
    """Whether the trunk is compiled; what was chosen at a run's start holds where nobody says otherwise.

    Compiled code rounds differently, and differently for each size. With large-scale jitter all batches have one
    size, so that one compilation serves the run, and a resumed run computes the same bits.

    Args:
        config: as given; `compile` None = as at the run's start, not compiled where this is it.
        saved: `config.toml` of the run that is resumed.
        device: of the network.

    Raises:
        UsageError: it cannot be had with the other settings, or on this machine.
    """
    wanted = config.compile
    if wanted is None:
        wanted = bool((saved or {}).get("resolved", {}).get("compile", False))
    if not wanted:
        return False
    if config.checkpointing:
        raise UsageError("found both --compile and --checkpointing; give one of them")
    if "lsj" not in config.augment:
        names = ",".join(config.augment) or "nothing"
        raise UsageError(
            f"--compile: needs pictures of one size, and --augment {names} gives many; "
            "give --augment flip,lsj, or use --no-compile"
        )
    reason = _why_not_on(device)
    if reason:
        raise UsageError(f"--compile: {reason}; install one, set CXX, or use --no-compile")
    return True


def _why_not_on(device: torch.device) -> str | None:
    """For a GPU Triton writes machine code itself."""
    return why_not() if device.type == "cpu" else None
