"""A training run: from a dataset to `RUN/best.safetensors`, epoch by epoch, resumable after every step."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch

from segcli.annotations import Dataset
from segcli.config import TrainConfig
from segcli.console import say
from segcli.data.order import EpochBatches, Share
from segcli.data.repeats import repeat_factors
from segcli.data.training_set import TrainingSet
from segcli.device import Compute
from segcli.models import MaskRCNN
from segcli.models.training.prepare import prepare_for_training
from segcli.prediction.compiled import keep_compiled
from segcli.training.checkpoint import load_last
from segcli.training.ema import MovingAverage
from segcli.training.loader import deaths_named, read_ahead
from segcli.training.log import TrainingLog
from segcli.training.loop import StepRules
from segcli.training.material import Material
from segcli.training.optim import Schedule, build_optimizer
from segcli.training.parallel import LossNetwork
from segcli.training.progress import Progress
from segcli.training.recipe import losses_of, warmup_of
from segcli.training.session import Session
from segcli.training.start import freeze_stages
from segcli.training.state import TrainState
from segcli.training.stopping import StopRequest
from segcli.training.tensorboard import TensorBoard
from segcli.training.world import ALONE, World
from segcli.zoo import LoadedModel


@dataclass(frozen=True, eq=False)
class Job:
    """Everything a run needs, resolved.

    Attributes:
        model: what training starts from.
        material: training pictures.
        val: validation pictures, or None.
        config: settings, no `None` left among those that the loop reads.
        steps: optimiser steps in all.
        compute: device and precision.
        workers: processes that read pictures.
        folder: RUN.
        roi_align: backend.
        world: the processes that train together.
    """

    model: LoadedModel
    material: Material
    val: Dataset | None
    config: TrainConfig
    steps: int
    compute: Compute
    workers: int
    folder: Path
    roi_align: str = "auto"
    world: World = ALONE

    def order(self, epoch: int = 0, start: int = 0) -> EpochBatches:
        """Which pictures make which batch of an epoch, from batch `start` of it on."""
        config, pictures = self.config, self.material.pictures
        assert config.batch_size is not None
        rare = config.repeat_threshold
        return EpochBatches(
            pictures.shapes(), config.batch_size, seed=config.seed, epoch=epoch, start=start,
            share=Share(self.world.rank, self.world.size),
            repeats=repeat_factors(pictures, rare) if rare else None,
        )  # fmt: skip

    def pictures(self) -> TrainingSet:
        """The training pictures as the network wants them."""
        config = self.config
        return TrainingSet(
            self.material.pictures, self.model.spec.conventions.preprocess,
            augment=config.augment, seed=config.seed,
            max_instances=config.max_instances, classes=self.material.classes,
        )  # fmt: skip

    def rules(self) -> StepRules:
        """How a step is made."""
        config = self.config
        assert config.lr is not None
        return StepRules(
            schedule=Schedule(config.schedule, warmup_of(config, self.steps), self.steps),
            peak_lr=config.lr,
            compute=self.compute,
            clip=config.clip,
            accumulate=config.accumulate,
            seed=config.seed,
            world=self.world,
        )


def run(job: Job) -> Progress:
    """Train to the end, from the last checkpoint where there is one.

    Raises:
        TrainingError: several steps in a row broke, a process that reads pictures died, or memory is short.
        OutputError: no space is left for a checkpoint.
        KeyboardInterrupt, Terminated: after Ctrl-C or SIGTERM, with a checkpoint saved.
    """
    state = build_state(job)
    kept = _go_on(job, state)
    progress = state.progress
    order = job.order(progress.epoch, progress.batch)
    with (
        StopRequest().heeded() as stop,
        TrainingLog(
            job.folder / "metrics.jsonl" if job.world.is_main else None,
            progress,
            job.steps,
            keep=kept,
            board=_board(job, progress),
        ) as log,
    ):
        session = Session(job, state, log, stop)
        batches = read_ahead(
            job.pictures(), order, job.workers,
            pinned=job.compute.device.type == "cuda", told=session.name_left_out,
        )  # fmt: skip
        with deaths_named(), closing(batches):
            session.train(batches, order.whole, LossNetwork(state.network, job.compute, job.world))
    return progress


def build_state(job: Job) -> TrainState:
    """Network, optimiser and average at step 0, on their device; cuDNN is told to give the same bits in every run."""
    torch.backends.cudnn.deterministic = True
    config = job.config
    network = MaskRCNN(job.model.spec, job.roi_align)
    network.load_state_dict(job.model.state)
    assert config.freeze is not None
    freeze_stages(network, config.freeze)
    if config.compile:
        keep_compiled()
    prepare_for_training(
        network.to(job.compute.device),
        losses=losses_of(config),
        checkpoint_activations=config.checkpointing,
        compile=bool(config.compile),
    )
    assert config.optimizer is not None
    assert config.lr is not None
    assert config.weight_decay is not None
    optimizer = build_optimizer(
        network, config.optimizer,
        lr=config.lr, weight_decay=config.weight_decay, momentum=config.momentum,
    )  # fmt: skip
    average = MovingAverage(network, config.ema) if config.ema else None
    return TrainState(network, optimizer, average)


def _board(job: Job, progress: Progress) -> TensorBoard | None:
    wanted = job.config.tensorboard and job.world.is_main
    return TensorBoard(job.folder, step=progress.step) if wanted else None


def _go_on(job: Job, state: TrainState) -> int:
    """Take over the last checkpoint, which rank 0 reads; bytes of `metrics.jsonl` that belong to it."""
    found = job.world.share(load_last(job.folder) if job.world.is_main else None)
    if found is None:
        return 0
    state.restore(found.tensors, found.progress)
    say(f"resumed after epoch {state.progress.epoch}, step {state.progress.step}")
    return int(found.metrics_bytes)
