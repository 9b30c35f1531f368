"""The processes of one run, as torchrun starts them; a run without torchrun is a world of one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from segcli.console import VERBOSITY
from segcli.errors import TrainingError

# rank 0 measures the validation set while the others wait
_PATIENCE = timedelta(hours=2)


@dataclass(frozen=True)
class World:
    """Where this process stands among those that train together.

    Attributes:
        rank: 0 writes and talks.
        size: processes in all.
        local_rank: among those of this machine; also the number of its GPU.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this process writes and talks."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum of `values` over all processes, in place; no copy to the host."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def any(self, flag: bool) -> bool:
        """Whether any process says so; through main memory, so that no GPU is waited for."""
        if self.size == 1:
            return flag
        count = torch.tensor(int(flag))
        dist.all_reduce(count)
        return bool(count)

    def share(self, value: Any) -> Any:
        """What rank 0 passes, on every rank; any object that pickles, between processes of one run only."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def collect(self, value: Any) -> list[Any]:
        """What each rank passes, in their order, on every rank."""
        if self.size == 1:
            return [value]
        everyone: list[Any] = [None] * self.size
        dist.all_gather_object(everyone, value)
        return everyone

    def gather(self, value: Any) -> list[Any] | None:
        """What each rank passes, in their order, on rank 0; None elsewhere."""
        if self.size == 1:
            return [value]
        everyone: list[Any] | None = [None] * self.size if self.is_main else None
        dist.gather_object(value, everyone, dst=0)
        return everyone

    def wait(self) -> None:
        """Until every process has come here."""
        self.collect(None)


ALONE = World()


def was_restarted() -> bool:
    """Whether torchrun started this group of processes again, after one of them died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def under_torchrun() -> bool:
    """Whether torchrun watches this process; it passes signals on, and kills what does not end."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def device_of_process(device: str) -> str:
    """`--device` for this process: with several on a machine, each takes the GPU of its own number."""
    local = os.environ.get("LOCAL_RANK")
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several and local is not None and (device == "cuda" or (device == "auto" and _has_gpus())):
        return f"cuda:{local}"
    return device


def _has_gpus() -> bool:
    return torch.cuda.is_available()


@contextmanager
def joined_world(device: str) -> Iterator[World]:
    """Meet the other processes that torchrun started; a world of one where there are none.

    All but rank 0 fall silent. gloo carries what lies in main memory, nccl what lies on GPUs.

    Args:
        device: as `device_of_process` gives it.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    world = World(int(os.environ["RANK"]), size, int(os.environ.get("LOCAL_RANK", "0")))
    if not world.is_main:
        VERBOSITY.level = -1
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(world.local_rank)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
        store=_meeting_place(world), rank=world.rank, world_size=size, timeout=_PATIENCE,
    )  # fmt: skip
    try:
        yield world
    except RuntimeError as error:
        if not _is_lost_contact(error):
            raise
        raise TrainingError(
            f"process {world.rank} of {size}: another process of this run ended "
            f"({str(error).splitlines()[0][:200]}); run again with --resume"
        ) from error
    dist.destroy_process_group()  # not after an error: torchrun ends the others, nobody waits for them


def _is_lost_contact(error: RuntimeError) -> bool:
    """What gloo and nccl raise in the processes that are left."""
    return isinstance(error, dist.DistError) or "gloo/transport" in str(error)


def _meeting_place(world: World) -> Any:
    """Where the processes tell each other their addresses, apart for every restart.

    torchrun's own store outlives a restart, and `init_process_group` (torch 2.14, gloo) then reads addresses of
    processes that have died.
    """
    by_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    store = dist.TCPStore(  # type: ignore[attr-defined]
        os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), world.size,
        is_master=world.is_main and not by_agent,
    )  # fmt: skip
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return dist.PrefixStore(f"segcli/{attempt}", store)  # type: ignore[attr-defined]
