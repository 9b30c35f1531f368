"""`segcli predict folder|image`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from segcli.cli.numbers import FiniteRange
from segcli.cli.options import (
    F,
    batch_size_option,
    common_options,
    config_option,
    defaults,
    inference_options,
    overwrite_option,
    split_names,
)
from segcli.config import MAX_OVERLAP, MIN_TILE, DrawConfig, PredictConfig
from segcli.console import say

if TYPE_CHECKING:
    from segcli.prediction.options import JobOptions
    from segcli.prediction.walk import Inputs

_PREDICT = defaults(PredictConfig)
_EXISTING_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

_MODEL_OPTIONS = (
    click.option(
        "--model",
        required=True,
        metavar="MODEL",
        help="Checkpoint file, RUN folder, or weights by name (`segcli models list`).",
    ),
    click.option(
        "--output",
        required=True,
        type=click.Path(file_okay=False, path_type=Path),
        metavar="OUT",
        help="Folder for results; run again with the same one to go on where it stopped.",
    ),
    click.option(
        "--score",
        type=FiniteRange(0, 1),
        default=_PREDICT["score"],
        show_default=True,
        help="Lowest score that is kept.",
    ),
    click.option(
        "--max-detections",
        type=click.IntRange(min=1),
        default=None,
        metavar="N",
        help="Most objects per picture.  [default: the model's own]",
    ),
    batch_size_option,
    click.option(
        "--classes",
        type=click.UNPROCESSED,  # text from the command line, a list from a config file
        callback=split_names,
        metavar="A,B",
        help="Keep only these classes.  [default: all]",
    ),
    click.option(
        "--limit",
        type=click.IntRange(min=1),
        default=None,
        metavar="N",
        help="Run only the first N pictures (whole batches) and export what is done.",
    ),
    click.option(
        "--dry-run",
        is_flag=True,
        help="Open the model, print what would be done, write nothing.",
    ),
    click.option(
        "--allow-truncated",
        is_flag=True,
        help="Use what can be read of truncated pictures.",
    ),
    click.option(
        "--max-pixels",
        type=click.IntRange(min=1),
        default=_PREDICT["max_pixels"],
        show_default=True,
        metavar="N",
        help="Refuse larger pictures before decoding them.",
    ),
    click.option(
        "--decode",
        type=click.Choice(["auto", "cpu", "nvjpeg"]),
        default=_PREDICT["decode"],
        show_default=True,
        help="What decodes JPEGs; auto: the CPU. nvjpeg, on a GPU, changes pixels; by how much is printed.",
    ),
    click.option(
        "--tile",
        type=click.IntRange(min=MIN_TILE),
        default=_PREDICT["tile"],
        metavar="SIZE",
        help="Cut larger pictures into tiles of so many pixels a side; objects that several tiles show become one. "
        "The model's own limit of objects is then per tile, none per picture; --max-detections sets both.",
    ),
    click.option(
        "--overlap",
        type=FiniteRange(0, MAX_OVERLAP),
        default=_PREDICT["overlap"],
        show_default=True,
        metavar="F",
        help="Share of a tile that its neighbour shows too; at 0, objects on a seam stay in pieces.",
    ),
    click.option(
        "--tta",
        is_flag=True,
        help="See each picture at three sizes and mirrored, and merge: finer, and over six times as slow.",
    ),
)
_OUTPUT_OPTIONS = (
    click.option(
        "--draw-score",
        type=FiniteRange(0, 1),
        default=defaults(DrawConfig)["draw_score"],
        show_default=True,
        help="Lowest score in overlays, masks and tables.",
    ),
    click.option("--overlays", is_flag=True, help="Draw the objects on the pictures."),
    click.option("--masks", is_flag=True, help="Write 16-bit instance-id PNGs."),
    click.option("--csv", is_flag=True, help="Write instances.csv and counts.csv."),
    click.option("--no-coco-json", is_flag=True, help="Leave predictions.json out."),
    click.option(
        "--drop-vanished",
        is_flag=True,
        help="Go on although over 10 % of the planned pictures are gone.",
    ),
    click.option("--profile", is_flag=True, help="Print at the end where the time went."),
    overwrite_option,
    config_option,
)


def _options(function: F) -> F:
    """All that `folder` and `image` share."""
    function = common_options(inference_options(function))
    for option in reversed((*_MODEL_OPTIONS, *_OUTPUT_OPTIONS)):
        function = option(function)
    return function


@click.group()
@common_options
def predict() -> None:
    """Find objects on pictures: boxes, classes, scores and masks.

    \b
    Example:
      segcli predict folder photos --model torchvision/mask-rcnn-r50-fpn-coco --output out --overlays --csv

    OUT/predictions.json is COCO with scores and RLE masks. A job that was stopped goes on when the same command is
    run again. Pictures that cannot be read are listed in OUT/failed.jsonl; the exit code is then 3.
    """


@predict.command()
@click.argument("folder", metavar="DIR", type=_EXISTING_FOLDER)
@_options
@click.option("--no-recursive", is_flag=True, help="Leave out the folders in DIR.")
def folder(folder: Path, no_recursive: bool, **flags: Any) -> int:
    """Find objects on all pictures of a folder.

    \b
    Example:
      segcli predict folder photos --model runs/cells --output out --score 0.3 --overlays --masks --csv
    """

    def inputs(options: JobOptions) -> Inputs:
        from segcli.prediction.job import folder_inputs

        return folder_inputs(folder, options, recursive=not no_recursive)

    return _run("predict folder", inputs, flags)


@predict.command()
@click.argument("files", metavar="FILE...", type=_EXISTING_FILE, nargs=-1, required=True)
@_options
def image(files: tuple[Path, ...], **flags: Any) -> int:
    """Find objects on single pictures; results are named relative to their deepest common folder.

    \b
    Example:
      segcli predict image a.jpg b.png --model runs/cells --output out --overlays
    """

    def inputs(options: JobOptions) -> Inputs:
        from segcli.prediction.job import file_inputs

        return file_inputs(files, options)

    return _run("predict image", inputs, flags)


def _run(command: str, inputs: Callable[[JobOptions], Inputs], flags: dict[str, Any]) -> int:
    """Run the job, or print what it would do; the exit code."""
    _refuse_lone_overlap(flags)

    from functools import partial

    from segcli.prediction import job
    from segcli.prediction.facts import facts_of
    from segcli.prediction.loading import open_predictor
    from segcli.prediction.options import JobOptions

    options = JobOptions(
        command=command,
        coco_json=not flags["no_coco_json"],
        draw=DrawConfig(draw_score=flags["draw_score"]),
        **{
            name: flags[name]
            for name in (
                "output",
                "limit",
                "overwrite",
                "drop_vanished",
                "overlays",
                "masks",
                "csv",
                "profile",
            )
        },
    )
    config = PredictConfig(**{name: flags[name] for name in _PREDICT})
    found = inputs(options)
    facts = facts_of(found, config, options)
    opener = partial(open_predictor, roi_align=flags["roi_align"], facts=facts)
    if flags["dry_run"]:
        for line in job.dry_run(found, config, options, opener=opener):
            click.echo(line)
        return 0
    report = job.predict_job(found, config, options, opener=opener)
    say(report.line(options.output))
    return report.exit_code


def _refuse_lone_overlap(flags: dict[str, Any]) -> None:
    """--overlap says nothing without --tile; beside it in a config file it may stand."""
    source = click.get_current_context().get_parameter_source("overlap")
    if flags["tile"] is None and source is click.core.ParameterSource.COMMANDLINE:
        raise click.UsageError("--overlap needs --tile, the side of the tiles that overlap")
