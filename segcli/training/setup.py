"""From flags to a `Job`: what the settings resolve to, and whose folder RUN is."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from segcli import config as configuration
from segcli.annotations import Dataset, Picture
from segcli.categories import Categories
from segcli.config import TrainConfig, to_settings
from segcli.console import say
from segcli.data.augment import check_names
from segcli.device import resolve, roi_align_on
from segcli.errors import TrainingError, UsageError
from segcli.evaluation.joining import join_classes
from segcli.files import sha256, write_bytes
from segcli.models import ARCHITECTURES, ModelSpec
from segcli.models.roi_align import explain
from segcli.output import check_output, claim_output, sweep
from segcli.training.checkpoint import load_last
from segcli.training.job import Job, steps_of, warmup_of
from segcli.training.start import starting_model
from segcli.zoo import LoadedModel, is_path

COMMAND = "train"
# what may differ between the first start and a resume
_FREE = frozenset({"epochs", "steps", "workers", "device"})


def prepare(
    train: Dataset,
    val: Dataset | None,
    config: TrainConfig,
    *,
    folder: Path,
    resume: bool,
    overwrite: bool,
    roi_align: str = "auto",
) -> Job:
    """Make RUN ready and resolve every setting. The caller holds RUN's lock.

    Raises:
        UsageError: settings that do not fit together, or other ones than at the start of the run that is resumed.
        OutputError: RUN holds something else.
        TrainingError: nothing to train on.
    """
    check_names(config.augment)
    sweep(folder)  # what a kill -9 left half-written
    train = replace(train, pictures=tuple(trainable(train.pictures)))
    if not any(p.annotations for p in train.pictures):
        raise TrainingError(f"{train.source}: no object to train on")
    if val is not None:
        join_classes(train.categories, val.categories)  # refuses now what would fail after an epoch
    saved = _saved(folder) if resume else None
    compute = resolve(config.device, _precision(config, saved), training=True)
    roi_align_on(compute.device, roi_align)
    if saved is None:
        _refuse_own_input(config.model, folder)
        check_output(folder, overwrite=overwrite, command=COMMAND)
    last = folder / "last.ckpt"
    model = _resumed(last) if saved is not None and last.exists() else starting_model(config, train)
    resolved = replace(resolve_recipe(config, model), precision=compute.precision)
    settings = _resolved(resolved, train, val) | {"roi_align": roi_align}
    if saved is None:  # only now, when nothing can fail for the settings' sake, may an old run go
        claim_output(folder, overwrite=overwrite, command=COMMAND)
        _save(folder, config, settings)
    else:
        _refuse_differences(saved, settings, folder)
    job = Job(
        model=model,
        train=train,
        val=val,
        config=resolved,
        steps=steps_of(resolved, len(train.pictures)),
        compute=compute,
        workers=_workers(config),
        folder=folder,
        roi_align=roi_align,
    )
    _announce(job)
    return job


def _precision(config: TrainConfig, saved: dict[str, Any] | None) -> str:
    """A resumed run keeps the precision that `auto` chose at its start, also on another device."""
    if saved is not None and config.precision == "auto":
        return str(saved.get("resolved", {}).get("precision", "auto"))
    return config.precision


def _refuse_own_input(model: str, folder: Path) -> None:
    """Weights to start from must not lie where an old run is deleted."""
    inside = is_path(model) and Path(model).resolve().is_relative_to(folder.resolve())
    if model not in ARCHITECTURES and inside:
        raise UsageError(f"--model {model}: lies in --output {folder}; choose another --output")


def trainable(pictures: Iterable[Picture]) -> Iterable[Picture]:
    """Pictures with objects, and pictures without any annotation, as background; not those that hold only crowds."""
    for picture in pictures:
        if not picture.annotations or not all(a.iscrowd for a in picture.annotations):
            yield picture


def resolve_recipe(config: TrainConfig, model: LoadedModel) -> TrainConfig:
    """Fill in the architecture's own batch size, optimiser and learning rate (scaled with the batch size).

    Linear for SGD (Goyal et al. 2017); with the square root for AdamW (Malladi et al. 2022).
    """
    recipe = ARCHITECTURES[model.spec.architecture].recipe
    batch_size = config.batch_size or recipe.batch_size
    optimizer = config.optimizer or recipe.optimizer
    same = optimizer == recipe.optimizer
    lr = config.lr
    if lr is None:
        base = recipe.lr if same else {"sgd": 0.00125 * recipe.batch_size, "adamw": 1e-4}[optimizer]
        growth = batch_size / recipe.batch_size
        lr = base * (growth if optimizer == "sgd" else growth**0.5)
    decay = config.weight_decay
    if decay is None:
        decay = recipe.weight_decay if same else 1e-4
    return replace(config, batch_size=batch_size, optimizer=optimizer, lr=lr, weight_decay=decay)


def _announce(job: Job) -> None:
    config = job.config
    empty = sum(1 for p in job.train.pictures if not p.annotations)
    say(
        f"training {job.model.spec.architecture} on {len(job.train.pictures)} pictures ({empty} without objects), "
        f"{len(job.train.categories)} classes; {job.compute.describe()}; "
        f"RoIAlign: {explain(job.roi_align, job.compute.device)}"
    )
    say(
        f"{job.steps} steps of {config.batch_size}, {config.optimizer}, peak lr {config.lr:.3g}, "
        f"{config.schedule} with {warmup_of(config, job.steps)} steps of warm-up, "
        f"size {job.model.spec.conventions.preprocess.min_size}–{job.model.spec.conventions.preprocess.max_size}, "
        f"{job.workers} workers"
    )


def _workers(config: TrainConfig) -> int:
    if config.workers is not None:
        return config.workers
    return max(min(4, (os.cpu_count() or 1) - 1), 0)


def _saved(folder: Path) -> dict[str, Any] | None:
    """The `config.toml` of the run that is resumed; None where RUN is empty."""
    path = folder / configuration.FILE_NAME
    if not path.exists():
        return None
    table = configuration.load(path)
    if table.get("command") != COMMAND:
        raise UsageError(f"{folder}: not the folder of a training run; choose another --output")
    return table


def _resumed(last: Path) -> LoadedModel:
    record, content = load_last(last)
    entries = record["categories"]
    return LoadedModel(
        spec=ModelSpec.from_dict(record["spec"]),
        categories=Categories(tuple(e["name"] for e in entries), tuple(e["id"] for e in entries)),
        state=content["model"],
        source=str(record["source"]),
        sha256="",
        info=record["info"],
    )


def _resolved(config: TrainConfig, train: Dataset, val: Dataset | None) -> dict[str, Any]:
    """What decides the result: settings, and the data by hash."""
    settings = {k: v for k, v in to_settings(config).items() if k not in _FREE}
    return {
        **settings,
        "train_sha256": sha256(train.source),
        "val_sha256": sha256(val.source) if val is not None else "",
        "classes": list(train.categories.names),
    }


def _save(folder: Path, config: TrainConfig, settings: dict[str, Any]) -> None:
    text = configuration.dump(COMMAND, to_settings(config), settings)
    write_bytes(folder / configuration.FILE_NAME, text.encode("utf-8"))


def _refuse_differences(saved: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    before = saved.get("resolved", {})
    changed = [
        f"{name}: was {before.get(name)!r}, now {now.get(name)!r}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
    if changed:
        raise UsageError(
            f"{folder}: cannot be resumed with other settings ({'; '.join(changed)}); "
            "give the same ones, or --overwrite to start anew"
        )
