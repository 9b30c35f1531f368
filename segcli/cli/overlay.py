"""`segcli overlay`: masks drawn on pictures and video."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from segcli.cli.draw_options import DRAW_OPTIONS, draw_config
from segcli.cli.numbers import FiniteRange
from segcli.cli.options import (
    batch_size_option,
    common_options,
    config_option,
    defaults,
    inference_options,
    overwrite_option,
    refuse_without_model,
)
from segcli.config import PredictConfig
from segcli.console import say

if TYPE_CHECKING:
    from segcli.overlay.folder import PicturesJob, PicturesResult
    from segcli.overlay.video import VideoJob, VideoResult
    from segcli.prediction.profile import StageTimes

F = TypeVar("F", bound=Callable[..., Any])
_PREDICT = defaults(PredictConfig)

_PICTURE_OPTIONS = (
    click.option(
        "--predictions",
        type=click.Path(exists=True, path_type=Path),
        required=True,
        metavar="FILE",
        help="COCO json with scores, or an OUT folder of `segcli predict`.",
    ),
    click.option(
        "--output",
        type=click.Path(path_type=Path),
        required=True,
        metavar="OUT",
        help="Folder to write to.",
    ),
    *DRAW_OPTIONS,
    click.option(
        "--allow-truncated", is_flag=True, help="Draw on what can be read of a damaged picture."
    ),
    click.option(
        "--max-pixels",
        type=click.IntRange(min=1),
        default=_PREDICT["max_pixels"],
        show_default=True,
        metavar="N",
        help="Larger pictures are refused.",
    ),
    overwrite_option,
    config_option,
    common_options,
)


def _all(options: tuple[Callable[[F], F], ...]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


@click.group()
@common_options
def overlay() -> None:
    """Draw masks, outlines, classes and scores on pictures and video.

    \b
    Example:
      segcli overlay folder photos --predictions out/predictions.json --output drawn
      segcli overlay video street.mp4 --model torchvision/mask-rcnn-r50-fpn-coco --output street-masks.mp4
    """


@overlay.command()
@click.argument(
    "folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@_all(_PICTURE_OPTIONS)
def folder(folder: Path, **options: Any) -> int:
    """Draw predictions on the pictures of a folder; no model is needed.

    Pictures are found by their names in the predictions. Overlays keep name and format (a.gif becomes a.gif.png).
    Pictures that cannot be read are listed in OUT/failed.jsonl, and the exit code is 3.

    \b
    Example:
      segcli overlay folder photos --predictions out/predictions.json --output drawn --color-by instance
    """
    from segcli.overlay.folder import overlay_folder

    job = _pictures_job("overlay folder", options)
    return _report(overlay_folder(folder, job), job)


@overlay.command()
@click.argument(
    "files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@_all(_PICTURE_OPTIONS)
def image(files: tuple[Path, ...], **options: Any) -> int:
    """Draw predictions on single pictures; no model is needed.

    \b
    Example:
      segcli overlay image photos/a.jpg photos/b.png --predictions out --output drawn
    """
    from segcli.overlay.folder import overlay_images

    job = _pictures_job("overlay image", options)
    return _report(overlay_images(files, job), job)


def _pictures_job(command: str, options: dict[str, Any]) -> PicturesJob:
    from segcli.overlay.folder import PicturesJob

    own = ("predictions", "output", "overwrite", "allow_truncated", "max_pixels")
    return PicturesJob(
        command=command, style=draw_config(options), **{name: options[name] for name in own}
    )


def _report(result: PicturesResult, job: PicturesJob) -> int:
    failed = f"; {result.failed} failed, see {job.output / 'failed.jsonl'}" if result.failed else ""
    say(f"{result.drawn} pictures drawn into {job.output}{failed}")
    return 3 if result.failed else 0


def _seconds(_ctx: click.Context, _param: click.Parameter, value: Any) -> Fraction | None:
    from segcli.overlay.timecode import parse_time

    return None if value is None else parse_time(str(value))


@overlay.command()
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="OUT",
    help="Video to write: .mp4, .m4v, .mov or .mkv.",
)
@click.option("--model", metavar="MODEL", help="Weights: a file, a RUN or a name.")
@click.option(
    "--predictions",
    type=click.Path(exists=True, path_type=Path),
    metavar="FILE",
    help="Draw these (made by --save-predictions) in place of running a model.",
)
@click.option(
    "--save-predictions",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also write what the model found, as COCO json.",
)
@click.option("--start", callback=_seconds, metavar="TIME", help="Begin here: seconds or HH:MM:SS.")
@click.option("--end", callback=_seconds, metavar="TIME", help="Stop here: seconds or HH:MM:SS.")
@click.option(
    "--every",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Run the model on every Nth frame; those between show what it found last.",
)
@click.option("--no-audio", is_flag=True, help="Leave the sound out.")
@click.option(
    "--score",
    type=FiniteRange(0, 1),
    default=_PREDICT["score"],
    show_default=True,
    help="Lowest score that the model gives (and that is saved).",
)
@batch_size_option
@_all(DRAW_OPTIONS)
@inference_options
@click.option("--profile", is_flag=True, help="Print at the end where the time went.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist (never the input).")
@config_option
@common_options
@click.pass_context
def video(ctx: click.Context, /, **options: Any) -> int:
    """Find objects on a video, or take predictions, and draw them; sound and timestamps are kept.

    The output is H.264 with the source's size (made even), timestamps, frames and colours; its audio is copied bit
    by bit (with --start and --end to the nearest packet). Sideways phone videos are turned upright.

    \b
    Example:
      segcli overlay video street.mp4 --model run --output street-masks.mp4 --save-predictions street.json
      segcli overlay video street.mp4 --predictions street.json --output outlines.mp4 --style outline
    """
    from segcli.overlay.video import check_job

    _check_flags(ctx, options)
    job = _video_job(options)
    check_job(job)
    result = _render(job, options)
    say(f"{result.frames} frames written to {job.output}")
    return 3 if result.damaged else 0


# what says how a model is run
_FOR_MODELS = (
    "save_predictions", "every", "score", "batch_size", "device", "precision", "compile", "cpu_engine",
    "min_size", "max_size", "roi_align", "conventions",
)  # fmt: skip


def _check_flags(ctx: click.Context, options: dict[str, Any]) -> None:
    if (options["model"] is None) == (options["predictions"] is None):
        found = "neither" if options["model"] is None else "both"
        raise click.UsageError(f"found {found} of --model and --predictions; give exactly one", ctx)
    if options["model"] is None:
        hints = {"score": "--draw-score hides what has a low score"}
        refuse_without_model(ctx, _FOR_MODELS, hints)


def _video_job(options: dict[str, Any]) -> VideoJob:
    from segcli.overlay.video import VideoJob
    from segcli.overlay.video_in import Window

    own = ("source", "output", "every", "save_predictions", "overwrite")
    return VideoJob(
        window=Window(options["start"], options["end"]),
        style=draw_config(options),
        audio=not options["no_audio"],
        **{name: options[name] for name in own},
    )


def _render(job: VideoJob, options: dict[str, Any]) -> VideoResult:
    from segcli.overlay.video import overlay_with_model, overlay_with_predictions
    from segcli.overlay.video_predictions import FramePredictions

    if options["predictions"] is not None:
        predictions = FramePredictions(options["predictions"], job.source)
        with _profiled(None, options) as times:
            return overlay_with_predictions(job, predictions, times)
    from segcli.overlay.video_facts import facts_of_video
    from segcli.prediction.loading import open_predictor  # brings torch

    config = PredictConfig(
        **{f.name: options[f.name] for f in fields(PredictConfig) if f.name in options}
    )
    model = open_predictor(config, options["roi_align"], facts=facts_of_video(job))
    with _profiled(model, options) as times:
        return overlay_with_model(job, model, times)


def _profiled(model: object, options: dict[str, Any]) -> AbstractContextManager[StageTimes]:
    from segcli.prediction.profile import NO_TIMES, profiled

    return profiled(model, None, "frames") if options["profile"] else nullcontext(NO_TIMES)
