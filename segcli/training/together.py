"""Making a run ready in several processes: rank 0 decides and writes, the others follow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from segcli.annotations import Dataset
from segcli.config import TrainConfig
from segcli.console import VERBOSITY
from segcli.device import resolve
from segcli.errors import SegcliError
from segcli.training.job import Job
from segcli.training.material import Material
from segcli.training.setup import workers_of
from segcli.training.world import World, device_of_process


def prepare_together(
    prepare: Callable[[], Job],
    material: Material,
    val: Dataset | None,
    *,
    config: TrainConfig,
    world: World,
) -> Job:
    """The job of this process.

    Args:
        prepare: makes RUN ready; called in rank 0 alone, which alone needs to reach the folder.
        material: as every process reads it.
        val: likewise.
        config: as given here; device and workers are this process's own.
        world: of this process.

    Raises:
        SegcliError: from `prepare`, in rank 0, which says it.
        SystemExit: in the others, which say nothing.
    """
    if not world.is_main:
        return _follow(world.share(None), material, val, config=config, world=world)
    try:
        job = prepare()
    except SegcliError as error:
        world.share(error.exit_code)
        raise
    if world.size > 1:  # without the datasets, which every process has read
        world.share(replace(job, material=None, val=None))  # type: ignore[arg-type]
    return job


def _follow(
    main: Job | int,
    material: Material,
    val: Dataset | None,
    *,
    config: TrainConfig,
    world: World,
) -> Job:
    if isinstance(main, int):
        raise SystemExit(main)
    VERBOSITY.level = 0  # what goes wrong in this process, nobody else can say
    compute = resolve(device_of_process(config.device), main.compute.precision)
    return replace(
        main,
        material=material,
        val=val,
        compute=compute,
        workers=workers_of(config),
        world=world,
    )
