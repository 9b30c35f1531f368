"""A training run: from a dataset to `RUN/best.safetensors`, epoch by epoch, resumable at each."""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from segcli.annotations import Dataset
from segcli.config import PredictConfig, TrainConfig
from segcli.console import say
from segcli.data.order import EpochBatches
from segcli.data.training_set import TrainingSet
from segcli.device import Compute
from segcli.errors import TrainingError
from segcli.models import MaskRCNN
from segcli.training.checkpoint import load_last, save_last
from segcli.training.loader import EpochData, read_ahead
from segcli.training.log import TrainingLog
from segcli.training.loop import Progress, train_one_epoch
from segcli.training.optim import Schedule, build_optimizer
from segcli.training.start import freeze_early_layers
from segcli.zoo import LoadedModel, save_model

if TYPE_CHECKING:
    from segcli.evaluation.metrics import Metrics


@dataclass(frozen=True, eq=False)
class Job:
    """Everything a run needs, resolved.

    Attributes:
        model: what training starts from.
        train: training pictures; those without objects are kept.
        val: validation pictures, or None.
        config: settings, no `None` left among those that the loop reads.
        steps: optimiser steps in all.
        compute: device and precision.
        workers: processes that read pictures.
        folder: RUN.
        roi_align: backend.
    """

    model: LoadedModel
    train: Dataset
    val: Dataset | None
    config: TrainConfig
    steps: int
    compute: Compute
    workers: int
    folder: Path
    roi_align: str = "auto"

    def epoch_data(self, epoch: int) -> EpochData:
        """What one epoch reads, and in which order."""
        config, before = self.config, self.model.spec.conventions.preprocess
        assert config.batch_size is not None
        pictures = self.train.pictures
        shapes = [p.size[0] / p.size[1] for p in pictures]
        return EpochData(
            TrainingSet(pictures, before, augment=config.augment, seed=config.seed),
            EpochBatches(shapes, config.batch_size, seed=config.seed, epoch=epoch),
            before.pad_multiple,
        )


def run(job: Job) -> Progress:
    """Train to the end, from `last.ckpt` where there is one.

    Raises:
        TrainingError: a loss is not finite.
    """
    config, progress = job.config, Progress()
    network = MaskRCNN(job.model.spec, job.roi_align)
    network.load_state_dict(job.model.state)
    freeze_early_layers(network, job.model)
    # channels-last convolutions are 1.3 times as fast on CPUs, and what tensor cores want
    network.to(job.compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert config.optimizer is not None
    assert config.lr is not None
    assert config.weight_decay is not None
    optimizer = build_optimizer(
        network, config.optimizer,
        lr=config.lr, weight_decay=config.weight_decay, momentum=config.momentum,
    )  # fmt: skip
    if (job.folder / "last.ckpt").exists():
        progress = _go_on(job.folder / "last.ckpt", network, optimizer)
    schedule = Schedule(config.schedule, warmup_of(config, job.steps), job.steps)
    named: set[str] = set()
    with TrainingLog(job.folder / "metrics.jsonl", progress, job.steps) as log:
        while progress.step < job.steps:
            torch.manual_seed(config.seed * 1_000_003 + progress.epoch)
            before, data = progress.step, job.epoch_data(progress.epoch)
            with closing(read_ahead(data, job.workers, named=named)) as batches:
                train_one_epoch(
                    network, optimizer, batches, progress,
                    schedule=schedule, peak_lr=config.lr, clip=config.clip,
                    compute=job.compute, report=log.step,
                )  # fmt: skip
            if progress.step == before:
                raise TrainingError(f"{job.train.source}: not one of its pictures can be read")
            progress.epoch += 1
            log.flush()
            _evaluate(job, network, progress, log)
            save_last(job.folder / "last.ckpt", job.model, network, optimizer, progress)
    return progress


def _go_on(path: Path, network: MaskRCNN, optimizer: torch.optim.Optimizer) -> Progress:
    record, content = load_last(path)
    network.load_state_dict(content["model"])
    optimizer.load_state_dict(content["optimizer"])
    progress = Progress(**record["progress"])
    say(f"resumed after epoch {progress.epoch}, step {progress.step}")
    return progress


def _evaluate(job: Job, network: MaskRCNN, progress: Progress, log: TrainingLog) -> None:
    """Measure where it is time to, and keep the best weights by mask AP; without validation the last."""
    final = progress.step >= job.steps
    if job.val is None:
        _save_best(job, network, progress, None)
        say(f"epoch {progress.epoch}, step {progress.step}/{job.steps}: loss {log.loss:.3f}")
        return
    if not final and progress.epoch % job.config.eval_every:
        return
    metrics = _measure(job, network, job.val)
    ap = metrics.mask["AP"] if metrics.mask else None
    log.write({"val": {"box": metrics.box, "mask": metrics.mask}})
    better = progress.best_ap is None or (ap is not None and ap > progress.best_ap)
    if better:
        progress.best_ap, progress.best_epoch = ap, progress.epoch
        _save_best(job, network, progress, metrics)
    shown = "-" if ap is None else f"{ap:.3f}"
    say(
        f"epoch {progress.epoch}, step {progress.step}/{job.steps}: mask AP {shown}"
        f"{' (best so far)' if better else ''}, loss {log.loss:.3f}, {progress.seconds:.0f} s of training"
    )


def _measure(job: Job, network: MaskRCNN, val: Dataset) -> Metrics:
    from segcli.evaluation.model import evaluate_predictor
    from segcli.prediction.predictor import Predictor

    settings = PredictConfig(max_detections=job.config.max_dets)
    exact = Compute(job.compute.device, "fp32")  # numbers are those that `segcli eval` gives
    predictor = Predictor(network, job.model.categories, exact, config=settings)
    return evaluate_predictor(predictor, val, max_dets=job.config.max_dets)


def _save_best(job: Job, network: MaskRCNN, progress: Progress, metrics: Metrics | None) -> None:
    info = {
        **{key: job.model.info[key] for key in ("licence",) if key in job.model.info},
        "started_from": job.model.source,
        "epoch": progress.epoch,
        "step": progress.step,
        "max_dets": job.config.max_dets,
        "val": None if metrics is None else {"box": metrics.box, "mask": metrics.mask},
    }
    state = {name: value.cpu() for name, value in network.state_dict().items()}
    save_model(job.folder / "best.safetensors", replace(job.model, state=state, info=info))


def warmup_of(config: TrainConfig, steps: int) -> int:
    """Steps of warm-up; at most a third of a short run, so that the learning rate also reaches its peak and falls."""
    return min(config.warmup, steps // 3)


def steps_of(config: TrainConfig, pictures: int) -> int:
    """Optimiser steps in all: `steps`, else `epochs` passes."""
    assert config.batch_size is not None
    if config.steps is not None:
        return config.steps
    return (config.epochs or 12) * math.ceil(pictures / config.batch_size)
