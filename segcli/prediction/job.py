"""Batch inference over pictures: plan, predict, commit, export. `predict_job` is the whole of it on one screen."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segcli.config import PredictConfig
from segcli.console import detail, progress, say
from segcli.errors import OutputError
from segcli.files import folder_lock
from segcli.output import check_output, refuse_overlap
from segcli.prediction import drawings, export, tables
from segcli.prediction.opening import Job, Opener, begin, describe, open_job, open_new
from segcli.prediction.options import JobOptions
from segcli.prediction.pictures import PictureReader
from segcli.prediction.pipeline import PicturePredictor, Source, SumsUp, run_batches
from segcli.prediction.profile import NO_TIMES, StageTimes, profiled
from segcli.prediction.resume import load_saved
from segcli.prediction.shards import Index, read_index, read_rows
from segcli.prediction.walk import Inputs, find_pictures, name_pictures
from segcli.prediction.writer import RowWriter

if TYPE_CHECKING:
    from segcli.prediction.gpu_reader import GpuReader


@dataclass(frozen=True)
class Report:
    """How a job stands at the end of a start.

    Attributes:
        good: pictures with a result.
        failed: pictures without one, folders that could not be listed, drawings that could not be made.
        left: pictures of the plan that were not run yet (`--limit`).
        objects: found in all.
        ran: pictures predicted in this start.
        seconds: that took.
    """

    good: int
    failed: int
    left: int
    objects: int
    ran: int
    seconds: float

    @property
    def exit_code(self) -> int:
        """3 where something failed, else 0."""
        return 3 if self.failed else 0

    def line(self, out: Path) -> str:
        """The job in one line."""
        left = f", {self.left} left" if self.left else ""
        failed = f", {self.failed} failed (see {export.FAILED})" if self.failed else ""
        speed = f"{self.ran} run"
        if self.ran:
            speed += (
                f" in {self.seconds:.1f} s, {self.ran / max(self.seconds, 1e-9):.2f} pictures/s"
            )
        return f"{self.good} pictures done{failed}{left}, {self.objects} objects; {speed}; results in {out}"


def folder_inputs(folder: Path, options: JobOptions, *, recursive: bool = True) -> Inputs:
    """The pictures of a folder.

    Raises:
        UsageError: OUT is the folder, or the folder lies in OUT.
    """
    refuse_overlap(folder, options.output)
    return find_pictures(folder, recursive=recursive, skip=options.output)


def file_inputs(files: Sequence[Path], options: JobOptions) -> Inputs:
    """Single files; their keys are relative to their deepest common folder.

    Raises:
        UsageError: a file lies in OUT.
    """
    for file in files:
        refuse_overlap(file, options.output)
    return name_pictures(files)


def predict_job(
    inputs: Inputs,
    config: PredictConfig,
    options: JobOptions,
    *,
    opener: Opener,
    times: StageTimes = NO_TIMES,
) -> Report:
    """Predict pictures into `options.output`; run again, it goes on where it stopped.

    Args:
        inputs: the pictures.
        config: settings that change predictions.
        options: settings that do not.
        opener: makes the predictor.
        times: takes the seconds of the stages, where `options.profile` does not print them.

    Raises:
        UsageError: no pictures, or settings that differ from those the job was begun with.
        OutputError: OUT belongs to something else or is in use.
        PredictionError: the model failed on a batch.
    """
    if _is_new(options):  # an empty folder or a wrong MODEL shows before OUT is made
        opener = _always(open_new(inputs, config, opener))
    with _locked(options):
        job = open_job(inputs, config, options, opener=opener)
        begin(job)
        started = time.monotonic()
        _predict(job, times)
        return _finish(job, time.monotonic() - started)


def dry_run(
    inputs: Inputs, config: PredictConfig, options: JobOptions, *, opener: Opener
) -> list[str]:
    """What `predict_job` would do, in lines for the user. Writes nothing; opens the model, so wrong settings show."""
    _is_new(options)
    return describe(open_job(inputs, config, options, opener=opener, retry=False))


def _predict(job: Job, taken: StageTimes) -> None:
    """Run the batches; whatever stops them, those that are finished are committed."""
    if job.predictor is None:
        if job.options.profile:
            say("profile: nothing to predict in this start")
        return
    batches = ([Source(p.key, job.inputs.path(p.key)) for p in batch] for batch in job.batches)
    read = _reader(job)
    pictures = sum(len(batch) for batch in job.batches)
    profile = profiled(job.predictor, pictures) if job.options.profile else nullcontext(taken)
    with (
        profile as times,
        RowWriter(job.options.output, times=times) as writer,
        closing(
            run_batches(job.predictor, batches, read=read, weigh=read.weigh, times=times)
        ) as outcomes,
        progress(pictures, "predict", "pictures") as bar,
    ):
        for batch, found in zip(job.batches, outcomes, strict=True):
            writer.put([(o, p.batch) for p, o in zip(batch, found, strict=True)])
            bar.update(len(found))
    for part in (read, job.predictor):
        if isinstance(part, SumsUp) and (line := part.summary()):
            say(line)


def _reader(job: Job) -> PictureReader | GpuReader:
    """What decodes the pictures that are predicted."""
    if job.config.decode != "nvjpeg":
        return job.read
    from segcli.prediction.gpu_reader import gpu_reader  # brings torch

    return gpu_reader(job.predictor, job.config)


def _is_new(options: JobOptions) -> bool:
    """Whether the job begins anew; a folder that is not ours is refused before anything is made in it."""
    is_new = options.overwrite or load_saved(options.output, options.command) is None
    if is_new:
        check_output(options.output, overwrite=options.overwrite, command=options.command)
    return is_new


def _always(predictor: PicturePredictor) -> Opener:
    return lambda _config: predictor


@contextmanager
def _locked(options: JobOptions) -> Iterator[None]:
    """OUT, made where it is absent, held for this process."""
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{options.output}: cannot be made ({error.strerror})") from error
    with folder_lock(options.output):
        yield


def _finish(job: Job, seconds: float) -> Report:
    """Export what the shards hold, and say how the job stands."""
    out, options = job.options.output, job.options
    index = read_index(out, job.plan)
    failed = [*export.failures(job.plan, index)]
    failed += [(key, f"cannot list this folder ({why})") for key, why in job.inputs.unreadable]
    export.write_failed(out, failed)
    if options.coco_json:
        export.write_predictions(out, job.plan, index, job.categories)
    drawings.drop_stale(out, index)
    undrawn = _draw(job, index)
    if undrawn:
        export.write_failed(out, [*failed, *undrawn])
    for key, why in failed + undrawn:
        detail(f"failed: {key}: {why}")
    good = [entry for entry in index.values() if entry.error is None]
    return Report(
        good=len(good),
        failed=len(failed) + len(undrawn),
        left=len(job.plan.current) - len(index),
        objects=sum(entry.objects for entry in good),
        ran=sum(len(batch) for batch in job.batches),
        seconds=seconds,
    )


def _draw(job: Job, index: Index) -> list[tuple[str, str]]:
    """Overlays, masks and tables, as far as they are asked for; what could not be drawn."""
    out, options = job.options.output, job.options
    keys = job.plan.order()
    task = drawings.DrawJob(out, index, keys, job.inputs.path)
    undrawn = []
    if options.overlays:
        undrawn += drawings.draw_overlays(task, job.categories, options.draw, read=job.read)
    if options.masks:
        undrawn += drawings.draw_masks(task, options.draw.draw_score)
    if options.csv:
        good = [key for key in keys if key in index and index[key].error is None]
        tables.write_tables(
            out,
            read_rows(out, index, good),
            job.categories,
            draw_score=options.draw.draw_score,
            classes=job.config.classes,
        )
    return undrawn
