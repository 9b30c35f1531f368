"""The job `overlay video`: decode, find objects or look them up, draw, encode."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from segcli.categories import Categories
from segcli.config import DrawConfig
from segcli.console import progress, say, warn
from segcli.errors import DataError, OutputError, UsageError
from segcli.instances import Instances
from segcli.overlay.render import draw_instances
from segcli.overlay.timecode import format_time
from segcli.overlay.video_in import Frame, VideoInput, Window, describe_window, open_video
from segcli.overlay.video_out import check_output, open_writer
from segcli.overlay.video_predictions import FramePredictions, PredictionLog, open_log
from segcli.prediction.pipeline import SumsUp
from segcli.prediction.profile import DECODE, DRAW, ENCODE, MODEL, NO_TIMES, PREPARE, StageTimes


class FrameModel(Protocol):
    """What is needed of a predictor; `segcli.prediction.pipeline.PicturePredictor` has it."""

    @property
    def categories(self) -> Categories:
        """The classes that labels point into."""

    @property
    def batch_size(self) -> int:
        """Frames per forward pass."""

    def prepare(self, image: NDArray[np.uint8], /) -> Any:
        """Resize and normalise one picture, uint8 (H, W, 3) RGB."""

    def predict(self, pictures: Sequence[Any], /) -> list[Instances]:
        """Objects of each prepared picture."""


@dataclass(frozen=True)
class VideoJob:
    """What to draw where.

    Attributes:
        source: the video.
        output: the video to write.
        window: the part of the source that is kept.
        style: how objects look.
        audio: copy the audio.
        every: the network runs on every so many frames; those between show what it found last.
        save_predictions: also write a file of predictions.
        overwrite: replace files that exist.
    """

    source: Path
    output: Path
    window: Window = field(default_factory=Window)
    style: DrawConfig = field(default_factory=DrawConfig)
    audio: bool = True
    every: int = 1
    save_predictions: Path | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class VideoResult:
    """What was done.

    Attributes:
        frames: written.
        damaged: packets of the source that could not be decoded.
    """

    frames: int
    damaged: int


def check_job(job: VideoJob) -> None:
    """Refuse what cannot work before a model is loaded.

    Raises:
        SegcliError: an output that exists or is an input, an empty window, a source that is no video.
    """
    check_output(job.output, job.source, overwrite=job.overwrite)
    start, end = job.window.start, job.window.end
    if end is not None and end <= (start or 0):
        raise UsageError(
            f"--end {format_time(end)} is not after --start {format_time(start or end)}"
        )
    saved = job.save_predictions
    if saved is not None:
        if saved.resolve() in (job.source.resolve(), job.output.resolve()):
            raise UsageError(f"{saved}: --save-predictions is the video; choose another name")
        if saved.exists() and not job.overwrite:
            raise OutputError(f"{saved}: exists; give --overwrite to replace it, or another name")
    with open_video(job.source):
        pass


def overlay_with_model(
    job: VideoJob, model: FrameModel, times: StageTimes = NO_TIMES
) -> VideoResult:
    """Find objects on every frame and draw them; `times` takes the seconds of the stages."""
    with ExitStack() as stack:
        video = stack.enter_context(open_video(job.source))
        log = None
        if job.save_predictions is not None:
            log = stack.enter_context(
                open_log(job.save_predictions, job.source, model.categories, every=job.every)
            )
        found = _predicted(_timed(video.frames(job.window), times), model, job.every, times)
        logged = _logged(found, log, str(video.time_base))
        result = _render(job, video, logged, model.categories, times)
    if isinstance(model, SumsUp) and (line := model.summary()):
        say(line)
    return result


def overlay_with_predictions(
    job: VideoJob, predictions: FramePredictions, times: StageTimes = NO_TIMES
) -> VideoResult:
    """Draw objects that were found before; `times` takes the seconds of the stages."""
    with open_video(job.source) as video:
        frames = _timed(video.frames(job.window), times)
        found = ((frame, predictions.instances(frame), False) for frame in frames)
        return _render(job, video, found, predictions.categories, times)


# a frame, its objects, and whether they were found on this very frame
Found = Iterator[tuple[Frame, Instances, bool]]


def _timed(frames: Iterator[Frame], times: StageTimes) -> Iterator[Frame]:
    """The frames, with the time that each takes to decode."""
    while True:
        with times.stage(DECODE, calls=0):
            frame = next(frames, None)
        if frame is None:
            return
        times.add(DECODE, calls=1, wall=0.0, cpu=0.0)
        yield frame


def _render(
    job: VideoJob, video: VideoInput, found: Found, names: Categories, times: StageTimes
) -> VideoResult:
    """The loop."""
    bar = progress(video.estimated_frames(job.window), job.source.name, "frame")
    with bar, open_writer(job.output, video, job.window, audio=job.audio) as writer:
        for frame, instances, _ in found:
            with times.stage(DRAW):
                drawn = draw_instances(frame.rgb, instances, names, job.style)
            with times.stage(ENCODE):
                writer.write(frame, drawn)
            bar.update()
        if writer.frames == 0:
            raise DataError(f"{job.source}: no frame {describe_window(job.window)}")
    if video.damaged:
        warn(f"{job.source}: {video.damaged} damaged packets were left out")
    return VideoResult(writer.frames, video.damaged)


def _predicted(frames: Iterator[Frame], model: FrameModel, every: int, times: StageTimes) -> Found:
    """Run the network on every `every`-th frame, in batches; holds about one batch of frames."""
    batch_size = max(1, model.batch_size // every)
    waiting: list[Frame] = []
    last: Instances | None = None
    for number, frame in enumerate(frames):
        if number % every and not waiting:
            assert last is not None
            yield frame, last, False
            continue
        waiting.append(frame)
        if len(waiting) > (batch_size - 1) * every:
            for row in _predict(waiting, model, every, times):
                last = row[1]
                yield row
            waiting = []
    yield from _predict(waiting, model, every, times)


def _predict(frames: list[Frame], model: FrameModel, every: int, times: StageTimes) -> Found:
    """Objects of consecutive frames of which the first is predicted."""
    seen = frames[::every]
    with times.stage(PREPARE, len(seen)):
        prepared = [model.prepare(frame.rgb) for frame in seen]
    with times.stage(MODEL) if seen else nullcontext():
        results = model.predict(prepared)
    for number, frame in enumerate(frames):
        yield frame, results[number // every], number % every == 0


def _logged(found: Found, log: PredictionLog | None, time_base: str) -> Found:
    for frame, instances, fresh in found:
        if log is not None and fresh:
            log.add(frame, instances, time_base)
        yield frame, instances, fresh
