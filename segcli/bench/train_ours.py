"""segcli as a contestant of `segcli bench train`: its samples, its losses and its optimiser."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from segcli.bench.train_inputs import TrainInputs
from segcli.bench.trainers import TrainTask
from segcli.data.batch import Batch, make_batch
from segcli.data.training_set import Ticket, TrainingSet
from segcli.device import resolve
from segcli.models import MaskRCNN
from segcli.models.training.losses import training_losses
from segcli.models.training.prepare import prepare_for_training
from segcli.training.optim import build_optimizer
from segcli.training.parallel import to_device

LR, MOMENTUM, WEIGHT_DECAY = 1e-4, 0.9, 1e-4
CHECK_KEY = 1000


class OurTraining:
    """Steps of segcli.

    Attributes:
        resolved: what runs.

    Args:
        task: the job.
        inputs: pictures and network.
        precision: as of `--precision`.
    """

    def __init__(self, task: TrainTask, inputs: TrainInputs, precision: str) -> None:
        self.compute = resolve(task.device, precision)
        self.inputs, self.size = inputs, task.batch_size
        preprocess = inputs.spec.conventions.preprocess
        self._samples = TrainingSet(inputs.pictures, preprocess, augment=(), seed=0)
        self._collate = make_batch(preprocess.pad_multiple)
        network = MaskRCNN(inputs.spec)
        network.load_state_dict(inputs.state)
        network.roi_heads.mask_rois = None  # torchvision looks at all
        if inputs.frozen:
            freeze(network)
        self.network = prepare_for_training(network.to(self.compute.device))
        self.optimizer = build_optimizer(
            network, "sgd", lr=LR, weight_decay=WEIGHT_DECAY, momentum=MOMENTUM
        )
        self.resolved: dict[str, Any] = {
            "precision": self.compute.precision,
            "device": self.compute.device.type,
            "threads": torch.get_num_threads(),
        }
        self.step_number = 0

    def losses(self) -> dict[str, float]:
        """Of the first batch, with the samples that `CHECK_KEY` draws; fixed weights."""
        images, targets, sizes = self._on_device(self._read(0))
        keys = [CHECK_KEY + i for i in range(len(sizes))]
        with torch.no_grad(), self.compute.autocast():
            found = training_losses(self.network, images, sizes, targets, keys).means()
        return {name: float(loss) for name, loss in found.items()}

    def step(self) -> dict[str, float]:
        """One step; seconds by stage."""
        marks = [time.perf_counter()]
        batch = self._read(self.step_number)
        marks.append(time.perf_counter())
        self.optimizer.zero_grad(set_to_none=True)  # before the forward pass: less is held at once
        images, targets, sizes = self._on_device(batch)
        with self.compute.autocast():
            losses = self.network(images, sizes, targets)
        assert isinstance(losses, dict)
        total = torch.stack([loss.float() for loss in losses.values()]).sum()
        total.item()
        marks.append(time.perf_counter())
        total.backward()  # type: ignore[no-untyped-call]
        wait(self.compute.device)
        marks.append(time.perf_counter())
        self.optimizer.step()
        wait(self.compute.device)
        marks.append(time.perf_counter())
        self.step_number += 1
        return stages_of(marks)

    def _read(self, step: int) -> Batch:
        count = len(self.inputs.pictures)
        rows = [(step * self.size + i) % count for i in range(self.size)]
        return self._collate([self._samples[Ticket(0, row)] for row in rows])

    def _on_device(
        self, batch: Batch
    ) -> tuple[Tensor, list[dict[str, Tensor]], list[tuple[int, int]]]:
        return *to_device(batch, self.compute.device), batch.sizes


def freeze(network: Any) -> None:
    """Stem and first stage, as torchvision's references do (trainable layers 3)."""
    for name, parameter in network.backbone.body.named_parameters():
        if name.startswith(("conv1", "bn1", "layer1")):
            parameter.requires_grad_(False)


def wait(device: torch.device) -> None:
    """For the GPU, where there is one."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def stages_of(marks: list[float]) -> dict[str, float]:
    """Seconds between the marks of one step."""
    names = ("data", "forward", "backward", "optimiser")
    return {
        name: end - start for name, start, end in zip(names, marks[:-1], marks[1:], strict=True)
    }
