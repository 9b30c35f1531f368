"""`segcli eval`: how good a model or a file of predictions is."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from segcli.cli.numbers import FiniteRange
from segcli.cli.options import (
    batch_size_option,
    common_options,
    config_option,
    defaults,
    exact_options,
    overwrite_option,
    refuse_without_model,
)
from segcli.config import PredictConfig, TrainConfig
from segcli.console import say

if TYPE_CHECKING:
    from segcli.evaluation.metrics import Metrics

# two fp32 paths give the same numbers; a lower precision is the user's own wish
_PRECISION = "fp32"
_MODEL_ONLY = ("score", "batch_size", "device", "precision", "roi_align", "min_size", "max_size",
               "conventions")  # fmt: skip
_NOT_SAVED = ("output", "overwrite", "json")


@click.command(name="eval", context_settings={"default_map": {"precision": _PRECISION}})
@click.argument("dataset", type=click.Path(exists=True, path_type=Path))
@click.option("--model", metavar="MODEL", help="Weights to evaluate: a file, a RUN or a name.")
@click.option(
    "--predictions",
    type=click.Path(exists=True, path_type=Path),
    metavar="FILE",
    help="Predictions to evaluate: COCO json, a bare results list, or an OUT folder; no picture is needed.",
)
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where the pictures lie.  [default: beside DATASET]",
)
@click.option(
    "--crowd-as-instance", is_flag=True, help="Take iscrowd annotations as ordinary objects."
)
@click.option(
    "--max-dets",
    type=click.IntRange(min=1),
    default=defaults(TrainConfig)["max_dets"],
    show_default=True,
    metavar="N",
    help="Detections counted per picture and class (and the most that the model gives per picture).",
)
@click.option(
    "--score",
    type=FiniteRange(0, 1),
    default=defaults(PredictConfig)["score"],
    show_default=True,
    help="Lowest score that the model gives.",
)
@batch_size_option
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Also write DIR/metrics.json.",
)
@click.option("--json", is_flag=True, help="JSON on stdout in place of the tables.")
@exact_options
@overwrite_option
@config_option
@common_options
@click.pass_context
def evaluate(ctx: click.Context, /, **options: Any) -> int:
    """Measure box and mask AP/AR (COCO) of a model or of predictions.

    DATASET is an annotation file, or a folder in a supported format. Predictions are joined to it by file name and
    class name (a bare list by ids). Exit code 3: some pictures could not be read and count as misses.

    \b
    Example:
      segcli eval data/val.json --model run/best.safetensors --output scores
      segcli eval data/val.json --predictions out/predictions.json --json
    """
    from segcli.evaluation import report

    _check(ctx, options)
    if options["output"] is not None:
        _check_output(options)
    metrics, resolved = _measure(options)
    if options["output"] is not None:
        _save(options, metrics, resolved)
    if options["json"]:
        click.echo(report.as_json(metrics), nl=False)
    else:
        report.show(metrics)
    return 3 if metrics.counts["failed_pictures"] else 0


def _check(ctx: click.Context, options: dict[str, Any]) -> None:
    if (options["model"] is None) == (options["predictions"] is None):
        found = "neither" if options["model"] is None else "both"
        raise click.UsageError(f"found {found} of --model and --predictions; give exactly one", ctx)
    if options["model"] is None:
        refuse_without_model(ctx, _MODEL_ONLY, {})


def _check_output(options: dict[str, Any]) -> None:
    """Refuse before the work, not after it, what cannot be written; nothing is touched."""
    from segcli.output import check_output, refuse_overlap

    given = [options[name] for name in ("dataset", "predictions", "images", "model")]
    for path in (Path(value) for value in given if value is not None):
        if path.exists():  # a model may be a name
            refuse_overlap(path, options["output"])
    check_output(options["output"], overwrite=options["overwrite"], command="eval")


def _save(options: dict[str, Any], metrics: Metrics, resolved: dict[str, Any]) -> None:
    from segcli.evaluation import report
    from segcli.output import claim_output

    claim_output(options["output"], overwrite=options["overwrite"], command="eval")
    path = report.save(metrics, options["output"], settings=_settings(options), resolved=resolved)
    say(f"written: {path}")


def _measure(options: dict[str, Any]) -> tuple[Metrics, dict[str, Any]]:
    """Metrics, and what changed them beside the settings."""
    from segcli.data.locate import open_dataset

    max_dets = options["max_dets"]
    truth = open_dataset(
        options["dataset"],
        options["images"],
        need_pictures=options["model"] is not None,
        crowd_as_instance=options["crowd_as_instance"],
    )
    if options["predictions"] is not None:
        from segcli.evaluation.predictions import evaluate_predictions
        from segcli.prediction.reader import read_predictions

        file = read_predictions(options["predictions"])
        return evaluate_predictions(truth, file, max_dets=max_dets), {}
    from segcli.evaluation.model import evaluate_predictor, whole_truth
    from segcli.prediction.loading import open_predictor

    names = {field.name for field in fields(PredictConfig)}
    known = {name: value for name, value in options.items() if name in names}
    # figures that are compared come from the plain detector everywhere, never from what a job's length chose
    config = PredictConfig(**known, max_detections=max_dets, compile=False)
    truth = whole_truth(truth, crowd_as_instance=options["crowd_as_instance"])
    predictor = open_predictor(config, options["roi_align"])
    return evaluate_predictor(predictor, truth, max_dets=max_dets), predictor.resolved


def _settings(options: dict[str, Any]) -> dict[str, Any]:
    """Options as TOML values, to be read back with --config."""
    kept = {k: v for k, v in options.items() if v is not None and k not in _NOT_SAVED}
    if "model" not in kept:
        kept = {k: v for k, v in kept.items() if k not in _MODEL_ONLY}
    return {k: str(v) if isinstance(v, Path) else v for k, v in kept.items()}
