"""Metrics for people and for programs: a table, and `metrics.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from segcli import config
from segcli.console import say, table
from segcli.evaluation.metrics import ClassMetrics, Metrics
from segcli.files import write_bytes

FILE_NAME = "metrics.json"


def show(metrics: Metrics) -> None:
    """Print two tables to stdout: the twelve numbers, and AP by class."""
    mask = metrics.mask or {}
    rows = [(name, _cell(value), _cell(mask.get(name))) for name, value in metrics.box.items()]
    counts = metrics.counts
    say(
        f"{counts['pictures']} pictures, {counts['truth']} objects, {counts['detections']} detections, "
        f"at most {metrics.max_dets} per picture and class"
    )
    table("COCO metrics", ("metric", "box", "mask"), rows)
    there = [row for row in metrics.per_class if row.truth or row.detections]
    table("AP by class", ("class", "box", "mask", "objects", "detections"), map(_class_row, there))
    absent = len(metrics.per_class) - len(there)
    if absent:
        say(f"{absent} classes with neither objects nor detections are not in the table")


def _class_row(row: ClassMetrics) -> tuple[object, ...]:
    return row.name, _cell(row.box_ap), _cell(row.mask_ap), row.truth, row.detections


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def as_json(metrics: Metrics) -> str:
    """The text of `metrics.json`; fractions, null where there is nothing to measure."""
    return json.dumps(metrics.to_json(), indent=2, allow_nan=False) + "\n"


def save(
    metrics: Metrics, folder: Path, *, settings: dict[str, Any], resolved: dict[str, Any]
) -> Path:
    """Write `metrics.json`, and the `config.toml` by which the folder is known as ours.

    Args:
        metrics: what was measured.
        folder: where to; made where it is absent.
        settings: of the command, as given.
        resolved: what they came to.

    Returns:
        The path of `metrics.json`.
    """
    write_bytes(folder / config.FILE_NAME, config.dump("eval", settings, resolved).encode())
    write_bytes(folder / FILE_NAME, as_json(metrics).encode())
    return folder / FILE_NAME
