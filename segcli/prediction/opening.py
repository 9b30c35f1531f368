"""Opening a job: what is done, what is left, and the promises that OUT holds from then on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from segcli.categories import Categories
from segcli.config import PredictConfig
from segcli.console import say, warn
from segcli.errors import ImageError, UsageError
from segcli.images import SUFFIXES, image_info
from segcli.output import EXPORTS, claim_output, sweep
from segcli.prediction import drawings
from segcli.prediction.options import JobOptions
from segcli.prediction.pictures import PictureReader
from segcli.prediction.pipeline import PicturePredictor
from segcli.prediction.plan import (
    Changes,
    Plan,
    Planned,
    append_section,
    parse,
    read_plan,
    refuse_vanished,
)
from segcli.prediction.resume import (
    left_to_run,
    limited,
    load_saved,
    needs_model,
    refuse_differences,
    refuse_lost_plan,
    save_config,
)
from segcli.prediction.shards import Index, read_index, shard_numbers
from segcli.prediction.walk import Found, Inputs

Opener = Callable[[PredictConfig], PicturePredictor]
_READERS = 8  # headers at a time; on a network's disk they are waited for


@dataclass(frozen=True)
class Job:
    """A job as it stands before its first batch; nothing is written yet.

    Attributes:
        inputs: the pictures.
        config: settings that change predictions.
        options: settings that do not.
        plan: with the section that this start adds.
        section: that section's text.
        index: results that are there.
        batches: to run in this start.
        resolved: what `config.toml` holds.
        read: decodes a picture.
        predictor: None where nothing is left to predict.
        is_new: first start, or begun anew.
        changes: how the folder differs from the plan as it was.
    """

    inputs: Inputs
    config: PredictConfig
    options: JobOptions
    plan: Plan
    section: bytes
    index: Index
    batches: list[list[Planned]]
    resolved: dict[str, Any]
    read: PictureReader
    predictor: PicturePredictor | None
    is_new: bool
    changes: Changes

    @property
    def categories(self) -> Categories:
        """The classes, in the order of the labels."""
        entries = self.resolved["categories"]
        return Categories(tuple(e["name"] for e in entries), tuple(e["id"] for e in entries))


def open_job(
    inputs: Inputs,
    config: PredictConfig,
    options: JobOptions,
    *,
    opener: Opener,
    retry: bool = True,
) -> Job:
    """Find out what is done and what is left; reads only.

    The model is opened for a new job, where something is left to predict, and where only it can tell whether
    settings changed.

    Args:
        inputs: the pictures.
        config: settings that change predictions.
        options: settings that do not.
        opener: makes the predictor.
        retry: decode failed pictures again, to see whether they work now.
    """
    out = options.output
    saved = None if options.overwrite else load_saved(out, options.command)
    read = PictureReader(config)
    predictor, plan, index = None, Plan(), Index()
    if saved is None:
        predictor = open_new(inputs, config, opener)
        resolved = predictor.resolved
    else:
        resolved = saved["resolved"]
        plan = read_plan(out)
        refuse_lost_plan(out, plan, shard_numbers(out))
    changes = plan.compare(inputs.pictures)
    if not options.drop_vanished:
        refuse_vanished(plan, changes, inputs.root)
    section = plan.section(changes, resolved["batch_size"], _upright(inputs, changes, resolved))
    plan = parse(section, plan)
    if saved is not None:
        index = read_index(out, plan)
    batches = limited(plan.by_batch(), options.limit)
    batches = left_to_run(batches, index, path=inputs.path, read=read if retry else None)
    if saved is not None and (batches or needs_model(saved, config)):
        predictor = opener(config)
        refuse_differences(out, saved, predictor.resolved)
    return Job(
        inputs=inputs,
        config=config,
        options=options,
        plan=plan,
        section=section,
        index=index,
        batches=batches,
        resolved=resolved,
        read=read,
        predictor=predictor,
        is_new=saved is None,
        changes=changes,
    )


def _upright(inputs: Inputs, changes: Changes, resolved: dict[str, Any]) -> list[bool] | None:
    """Of each added picture, whether its header says that it is taller than wide; None where it does not matter."""
    if resolved["batch_size"] == 1:
        return None

    def is_upright(picture: Found) -> bool:
        try:
            height, width = image_info(inputs.path(picture.key)).size
        except (ImageError, OSError):
            return False  # it will be named among the failed
        return height > width

    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(is_upright, changes.added))


def open_new(inputs: Inputs, config: PredictConfig, opener: Opener) -> PicturePredictor:
    """The predictor of a job that begins anew.

    Raises:
        UsageError: there are no pictures.
    """
    if not inputs.pictures:
        known = " ".join(sorted(SUFFIXES))
        raise UsageError(f"{inputs.root}: no pictures in it; looked for files that end in {known}")
    return opener(config)


def begin(job: Job) -> None:
    """Make OUT ours and fix settings and plan, before the first batch."""
    out = job.options.output
    sweep(out)
    if job.is_new:
        claim_output(out, overwrite=job.options.overwrite, command=job.options.command)
        save_config(out, job.options.command, job.config, job.resolved)
    if job.section or job.batches:
        for name in EXPORTS:  # they no longer say what the shards say; remade at the end
            (out / name).unlink(missing_ok=True)
    if job.section:
        append_section(out, job.section)
    drawings.drop_stale(out, job.index)
    _say_start(job)


def _say_start(job: Job) -> None:
    added, gone = len(job.changes.added), len(job.changes.gone)
    if not job.is_new and job.changes:
        say(f"{job.inputs.root}: {added} pictures new or changed, {gone} no longer there")
    if not job.is_new:
        to_run = sum(len(batch) for batch in job.batches)
        say(f"resuming: {len(job.index)} of {len(job.plan.current)} pictures done, {to_run} to run")
    for key, reason in job.inputs.unreadable:
        warn(f"{key}: cannot list this folder ({reason})")


def describe(job: Job) -> list[str]:
    """What a start would do, in lines for the user."""
    pictures = job.plan.current
    weight = sum(row.bytes for row in pictures.values())
    failed = sum(entry.error is not None for entry in job.index.values())
    to_run = sum(len(batch) for batch in job.batches)
    lines = [
        f"pictures: {len(pictures)} ({weight:,} bytes) in {len(job.plan.by_batch())} batches of "
        f"up to {job.resolved['batch_size']}",
        f"to run: {to_run} in {len(job.batches)} batches",
    ]
    if not job.is_new:
        lines.append(
            f"done already: {len(job.index)}, of which {failed} failed and will be tried again"
        )
        lines.append(
            f"since the last start: {len(job.changes.added)} new or changed, {len(job.changes.gone)} gone"
        )
    lines.append(f"nothing was written to {job.options.output}")
    return lines
