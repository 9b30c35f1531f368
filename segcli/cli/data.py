"""`segcli data`: look at datasets, and make synthetic ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from segcli.cli.options import common_options, config_option, overwrite_option

if TYPE_CHECKING:
    from segcli.data.check import Report
    from segcli.data.synth import SynthReport

_SOME_LEFT_OUT = 3
_MOST_CLASSES = 40


@click.group()
@common_options
def data() -> None:
    """Check datasets, and make synthetic ones.

    \b
    Example:
      segcli data check photos/train.json
    """


@data.command()
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of the pictures.  [default: looked for near DATASET]",
)
@click.option("--no-pictures", is_flag=True, help="Check the annotations alone.")
@click.option(
    "--crowd-as-instance", is_flag=True, help="Take `iscrowd` annotations as ordinary ones."
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object instead of tables.")
@common_options
def check(
    dataset: Path, images: Path | None, no_pictures: bool, crowd_as_instance: bool, as_json: bool
) -> int:
    """Say what DATASET holds and what is wrong with it.

    DATASET is a COCO json or a folder that holds one. Exit code 0: all is well; 3: some pictures or annotations
    would be left out; 1: nothing usable is left.

    \b
    Example:
      segcli data check photos/train.json --images photos/train
    """
    from segcli.data.check import check as count
    from segcli.data.coco import refuse_unusable, survey_coco
    from segcli.data.locate import annotation_file

    survey = survey_coco(
        annotation_file(dataset),
        images,
        need_pictures=not no_pictures,
        crowd_as_instance=crowd_as_instance,
    )
    report = count(survey)
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=1))
    else:
        _print_report(report)
    refuse_unusable(survey)
    return _SOME_LEFT_OUT if report.left_out else 0


@data.command()
@click.argument("output", type=click.Path(path_type=Path))
@click.option(
    "--images",
    type=click.IntRange(min=2),
    required=True,
    metavar="N",
    help="Pictures in all; one in five goes to val.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="S",
    help="The same seed gives the same bytes.",
)
@overwrite_option
@config_option
@common_options
def synth(output: Path, images: int, seed: int, overwrite: bool) -> None:
    """Make a dataset of synthetic scenes in the folder OUTPUT.

    Writes OUTPUT/train.json and OUTPUT/val.json (COCO) with their pictures in OUTPUT/train and OUTPUT/val.

    \b
    Example:
      segcli data synth scenes --images 200 --seed 1
    """
    from segcli.data.synth import synthesize

    _print_synth(synthesize(output, images=images, seed=seed, overwrite=overwrite))


def _print_report(report: Report) -> None:
    from segcli.console import table

    table(report.source, ("", "count"), _totals(report))
    table("Classes", ("class", "id", "objects", "crowds", "pictures"), _classes(report))
    if report.problems:
        table("Problems", ("problem", "count", "result"), _problems(report))


def _totals(report: Report) -> Iterator[tuple[str, object]]:
    spread, sizes = report.objects_per_picture, report.object_sizes
    yield "pictures", report.pictures
    yield "pictures without objects", report.pictures_without_objects
    yield "objects", report.objects
    yield "crowds (iscrowd)", report.crowds
    per_picture = f"{spread['min']:g} / {spread['median']:g} / {spread['max']:g}"
    yield "objects per picture: least / median / most", per_picture
    yield "small objects (< 32² px)", sizes["small"]
    yield "medium objects", sizes["medium"]
    yield "large objects (> 96² px)", sizes["large"]
    for (height, width), count in report.picture_sizes[:3]:
        yield f"pictures of {width} × {height}", count
    if len(report.picture_sizes) > 3:
        rest = sum(count for _, count in report.picture_sizes[3:])
        yield f"pictures of {len(report.picture_sizes) - 3} other sizes", rest


def _classes(report: Report) -> Iterator[tuple[object, ...]]:
    shown, rest = list(report.classes), []
    if len(shown) > _MOST_CLASSES:
        ranked = sorted(shown, key=lambda c: -c.objects)
        shown, rest = ranked[:_MOST_CLASSES], ranked[_MOST_CLASSES:]
    for c in shown:
        yield c.name, c.id, c.objects, c.crowds, c.pictures
    if rest:
        objects, crowds = sum(c.objects for c in rest), sum(c.crowds for c in rest)
        yield f"{len(rest)} rarer classes (all are in --json)", "", objects, crowds, ""


def _problems(report: Report) -> Iterator[tuple[object, ...]]:
    for group in report.problems:
        yield group.kind, group.count, "left out" if group.left_out else "kept"
        for example in group.examples:
            yield f"  {example.where}: {example.found}; {example.remedy}", "", ""


def _print_synth(report: SynthReport) -> None:
    from segcli.console import say, table

    rows = [(split, count, report.objects[split]) for split, count in report.pictures.items()]
    table(str(report.output), ("split", "pictures", "objects"), rows)
    say(
        f"{len(report.categories)} classes; {report.occluded:.0%} of the objects are occluded, "
        f"{report.small:.0%} are small (under 32² px)"
    )
