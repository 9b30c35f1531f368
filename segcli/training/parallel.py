"""The network as one process trains it: its losses on a batch, normalised over all processes."""

from __future__ import annotations

import inspect
import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from segcli.data.batch import Batch
from segcli.device import Compute
from segcli.models import MaskRCNN
from segcli.models.mask_targets import PATCH, RIM
from segcli.models.training.loss_sums import LossSums
from segcli.models.training.losses import training_losses
from segcli.training.world import World

_BLANK = 64  # pixels
# frozen statistics are the same everywhere; the argument's name depends on torch's version
_NAMES = inspect.signature(DistributedDataParallel.__init__).parameters
_NO_BUFFERS: dict[str, Any] = {
    "forward_sync_buffers" if "forward_sync_buffers" in _NAMES else "broadcast_buffers": False
}


class _Losses(nn.Module):
    """`training_losses` as a module's forward, which is where DDP begins to watch gradients."""

    def __init__(self, network: MaskRCNN) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, batch: Batch, targets: list[dict[str, Tensor]]) -> LossSums:
        return training_losses(self.network, images, batch.sizes, targets, keys=batch.keys or None)


class LossNetwork:
    """Losses of a batch. With several processes gradients are averaged while they are computed (DDP).

    Args:
        network: on its device.
        compute: device and precision.
        world: the processes that train together.
    """

    def __init__(self, network: MaskRCNN, compute: Compute, world: World) -> None:
        self.compute = compute
        self.world = world
        self._forward: nn.Module = _Losses(network)
        if world.size > 1:
            # of 1 × 1 convolutions, for which both layouts are the same bytes
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view")
            on_gpu = compute.device.type == "cuda"
            self._forward = DistributedDataParallel(
                self._forward,
                device_ids=[compute.device.index] if on_gpu else None,
                **_NO_BUFFERS,
                gradient_as_bucket_view=True,
            )

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """This process's share of each loss, 0-d float32; the sum over the processes is the loss of all pictures."""
        used = batch if batch.sizes else blank_batch(batch)
        images, targets = to_device(used, self.compute.device)
        with self.compute.autocast():
            sums: LossSums = self._forward(images, used, targets)
        weight = 1.0 if batch.sizes else 0.0
        counts = self.world.sum(sums.stacked_counts() * weight)
        losses = sums.means(LossSums.named(counts))
        return {name: loss * weight for name, loss in losses.items()}

    def reduced(self, *, final: bool) -> AbstractContextManager[Any]:
        """Gradients go to the other processes with the last batch of a step alone."""
        if final or not isinstance(self._forward, DistributedDataParallel):
            return nullcontext()
        return self._forward.no_sync()


def blank_batch(batch: Batch) -> Batch:
    """One grey picture in place of none that can be read: the other processes wait for this one's gradients."""
    return replace(
        batch,
        images=torch.zeros(1, 3, _BLANK, _BLANK),
        sizes=[(_BLANK, _BLANK)],
        targets=[_no_objects()],
        file_names=[],
        keys=[0],
    )


def _no_objects() -> dict[str, Tensor]:
    side = PATCH + 2 * RIM
    return {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0, dtype=torch.int64),
        "masks": torch.zeros(0, side, side, dtype=torch.uint8),
    }


def to_device(batch: Batch, device: torch.device) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Pictures and targets where the network is, copied without waiting where they lie in pinned memory.

    The targets' keys are left out: the host wants them, see `Batch.keys`.
    """
    images = batch.images.to(device, non_blocking=True, memory_format=torch.channels_last)
    targets = [
        {k: v.to(device, non_blocking=True) for k, v in target.items() if k != "key"}
        for target in batch.targets
    ]
    return images, targets
