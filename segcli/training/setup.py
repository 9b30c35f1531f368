"""From flags to a `Job`: what the settings resolve to, and whose folder RUN is."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from segcli import config as configuration
from segcli.annotations import Dataset
from segcli.categories import Categories
from segcli.config import TrainConfig, to_settings
from segcli.console import say
from segcli.data.augment import check_names
from segcli.device import Compute, resolve, roi_align_on
from segcli.errors import DataError, OutputError, UsageError
from segcli.evaluation.joining import join_classes
from segcli.files import sha256, write_bytes
from segcli.models import ARCHITECTURES, ModelSpec
from segcli.models.roi_align import explain
from segcli.output import check_output, claim_output, sweep
from segcli.training.checkpoint import Checkpoint, load_last
from segcli.training.compiling import choose_compile
from segcli.training.job import Job
from segcli.training.loader import read_ahead
from segcli.training.material import Material
from segcli.training.preview import write_previews
from segcli.training.recipe import (
    describe_lr,
    describe_step,
    losses_of,
    resolve_recipe,
    steps_of,
    warmup_of,
)
from segcli.training.start import starting_model
from segcli.training.tensorboard import check_installed
from segcli.training.world import ALONE, World, device_of_process
from segcli.zoo import LoadedModel, is_path

COMMAND = "train"
# what may differ between the first start and a resume
_FREE = frozenset({"epochs", "steps", "workers", "device", "patience", "tensorboard"}) | frozenset(
    {"save_every", "max_bad_steps", "max_instances", "checkpointing", "eval_batch_size"}
)


def prepare(
    material: Material,
    val: Dataset | None,
    config: TrainConfig,
    *,
    folder: Path,
    resume: bool,
    overwrite: bool,
    roi_align: str = "auto",
    world: World = ALONE,
) -> Job:
    """Make RUN ready and resolve every setting. The caller holds RUN's lock.

    With several processes this is rank 0's to do, see `segcli.training.together`.

    Raises:
        UsageError: settings that do not fit together, or other ones than at the start of the run that is resumed.
        OutputError: RUN holds something else.
    """
    check_names(config.augment)
    losses_of(config)  # refuses unknown ones
    if config.tensorboard:
        check_installed()
    sweep(folder)  # what a kill -9 left half-written
    _check_validation(config, material, val)
    saved = _saved(folder) if resume else None
    device = device_of_process(config.device)
    compute = resolve(device, _precision(config, saved))
    roi_align_on(compute.device, roi_align)
    compiled = choose_compile(config, saved, compute.device)
    if saved is None:
        _refuse_own_input(config.model, folder)
        check_output(folder, overwrite=overwrite, command=COMMAND)
    found = None if saved is None else load_last(folder)
    model = starting_model(config, material) if found is None else _resumed(found)
    resolved = resolve_recipe(config, model, processes=world.size)
    resolved = replace(resolved, precision=compute.precision, compile=compiled)
    settings = _resolved(resolved, material, val) | {
        "roi_align": roi_align,
        "processes": world.size,
    }
    if saved is None:  # only now, when nothing can fail for the settings' sake, may an old run go
        claim_output(folder, overwrite=overwrite, command=COMMAND)
        _save(folder, config, settings)
    else:
        _refuse_differences(saved, settings, folder)
    job = Job(
        model=model,
        material=material,
        val=val,
        config=resolved,
        steps=0,
        compute=compute,
        workers=workers_of(config),
        folder=folder,
        roi_align=roi_align,
        world=world,
    )
    job = replace(job, steps=steps_of(resolved, job.order().whole))
    _announce(job, config.lr)
    return job


def preview(
    material: Material, config: TrainConfig, *, folder: Path, overwrite: bool
) -> list[Path]:
    """Draw the first batches as the network would see them; see `segcli.training.preview`.

    Raises:
        OutputError: the folder holds something, and `overwrite` is not given.
    """
    check_names(config.augment)
    if not overwrite and folder.exists() and any(folder.iterdir()):
        raise OutputError(
            f"{folder}: is not empty; choose another folder, or give --overwrite to write into it"
        )
    model = starting_model(config, material)
    compute = Compute(torch.device("cpu"), "fp32")
    resolved = resolve_recipe(config, model)
    job = Job(model, material, None, resolved, 0, compute, 0, folder)
    batches = read_ahead(job.pictures(), job.order(), 0, told=lambda _batch: None)
    preprocess = model.spec.conventions.preprocess
    return write_previews(
        islice(batches, job.order().whole), folder, material.categories, preprocess
    )


def _check_validation(config: TrainConfig, material: Material, val: Dataset | None) -> None:
    """Refuse now what would fail, or never happen, after an epoch."""
    if val is None:
        if config.patience is not None:
            raise UsageError(
                f"--patience {config.patience}: counts validations, and there is none; give --val DATASET, "
                "or leave --patience out"
            )
        return
    try:
        join_classes(material.categories, val.categories)
    except DataError as error:
        ours, theirs = (", ".join(c.names[:6]) for c in (material.categories, val.categories))
        raise DataError(
            f"--val {val.source}: no class in common by name: found {theirs}, expected some of the training "
            f"data's {ours}; rename the classes of one side"
        ) from error


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


def _announce(job: Job, lr: float | None) -> None:
    config, material, world = job.config, job.material, job.world
    crowds = f"; {material.crowds_alone} of only crowds left out" if material.crowds_alone else ""
    say(
        f"training {job.model.spec.architecture} on {len(material.pictures)} pictures ({material.empty} without "
        f"objects{crowds}), {len(material.categories)} classes; {job.compute.describe()}; "
        f"RoIAlign: {explain(job.roi_align, job.compute.device)}"
    )
    say(
        f"{job.steps} steps of {describe_step(config, world.size)}, {config.optimizer}, "
        f"peak lr {describe_lr(config, lr, job.model, world.size)}, "
        f"{config.schedule} with {warmup_of(config, job.steps)} steps of warm-up, "
        f"size {job.model.spec.conventions.preprocess.min_size}–{job.model.spec.conventions.preprocess.max_size}, "
        f"{job.workers} workers"
    )


def workers_of(config: TrainConfig) -> int:
    """Processes that read pictures for this one; several on a machine share its cores."""
    if config.workers is not None:
        return config.workers
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(min(4, (os.cpu_count() or 1) // here - 1), 0)


def _saved(folder: Path) -> dict[str, Any] | None:
    """The `config.toml` of the run that is resumed; None where RUN is empty."""
    path = folder / configuration.FILE_NAME
    if not path.exists():
        return None
    table = configuration.load(path)
    if table.get("command") != COMMAND:
        raise UsageError(f"{folder}: not the folder of a training run; choose another --output")
    return table


def _resumed(found: Checkpoint) -> LoadedModel:
    entries = found.record["categories"]
    return LoadedModel(
        spec=ModelSpec.from_dict(found.record["spec"]),
        categories=Categories(tuple(e["name"] for e in entries), tuple(e["id"] for e in entries)),
        state=found.tensors["model"],
        source=str(found.record["source"]),
        sha256="",
        info=found.record["info"],
    )


def _resolved(config: TrainConfig, material: Material, val: Dataset | None) -> dict[str, Any]:
    """What decides the result: settings, and the data by hash."""
    settings = {k: v for k, v in to_settings(config).items() if k not in _FREE}
    return {
        **settings,
        "train_sha256": ",".join(map(sha256, material.sources)),
        "val_sha256": sha256(val.source) if val is not None else "",
        "classes": list(material.categories.names),
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
