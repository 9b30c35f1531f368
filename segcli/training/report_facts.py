"""What a report says in tables: settings, weights, versions, mishaps. Rows of plain text; the page escapes them."""

from __future__ import annotations

import importlib.metadata
import platform
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from segcli import config as configuration
from segcli.files import sha256
from segcli.training.report_log import Evaluation, RunLog
from segcli.version import __version__

Row = tuple[str, ...]

_PACKAGES = (
    "torch",
    "torchvision",
    "triton",
    "numpy",
    "opencv-python",
    "pycocotools",
    "safetensors",
)
_LISTED = 50  # events that are shown one by one
_FILES = 8  # names in one event's row


def settings_rows(run: Path) -> list[Row]:
    """Each setting: its name, as given, and what it resolved to.

    Raises:
        UsageError: `config.toml` is damaged.
    """
    path = run / configuration.FILE_NAME
    if not path.exists():
        return []
    table = configuration.load(path)
    given, resolved = (dict(_flat(table.get(part, {}))) for part in ("settings", "resolved"))
    names = dict.fromkeys((*given, *resolved))
    return [(name, given.get(name, ""), resolved.get(name, "")) for name in names]


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested tables as `table.name` and a text."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(inner, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(value, list | tuple) and not any(isinstance(v, Mapping) for v in value):
        yield (
            prefix,
            ", ".join(
                "/".join(map(str, v)) if isinstance(v, list | tuple) else str(v) for v in value
            ),
        )
    else:
        yield prefix, _text(value)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def weights_rows(path: Path) -> list[Row]:
    """What a checkpoint of ours is, from its header; no weights are read into memory.

    Raises:
        ValueError: the file cannot be used.
    """
    from safetensors import safe_open

    from segcli.models.checkpoints.own import read_header

    spec, info = read_header(path)
    with safe_open(path, framework="pt") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118  # no mapping
    values = sum(_product(shape) for shape in shapes)
    before, after = spec.conventions.preprocess, spec.conventions.postprocess
    names = [str(c["name"]) for c in info.get("categories", ())]
    known = {
        "file": f"{path.name}, {path.stat().st_size / 1e6:.1f} MB, {values / 1e6:.2f} million values",
        "SHA-256": sha256(path),
        "architecture": spec.architecture,
        "classes": f"{spec.classes}: {', '.join(names)}",
        "anchors": ", ".join("/".join(map(str, level)) for level in spec.anchors.sizes) + " px",
        "input size": f"shorter side {before.min_size}, longest {before.max_size} px",
        "most objects a picture": str(after.max_detections),
    }
    others = {k: v for k, v in info.items() if k not in ("categories", "val") and v is not None}
    return [*known.items(), *((n.replace("_", " "), t) for n, t in _flat(others))]


def _product(shape: list[int]) -> int:
    total = 1
    for side in shape:
        total *= side
    return total


def version_rows() -> list[Row]:
    """What this process runs on; the machine is not named."""
    import torch

    rows: list[Row] = [("segcli", __version__), ("Python", platform.python_version())]
    for package in _PACKAGES:
        try:
            rows.append((package, importlib.metadata.version(package)))
        except importlib.metadata.PackageNotFoundError:
            continue  # triton, outside Linux
    rows.append(("system", f"{platform.system()} {platform.machine()}"))
    if torch.cuda.is_available():
        rows.append(("GPU", torch.cuda.get_device_name()))
    return rows


def metric_rows(best: Evaluation, last: Evaluation) -> list[Row]:
    """Every figure of the best and of the last evaluation: name, mask and box of each."""
    names = dict.fromkeys((*best.mask, *best.box))
    return [
        (name, *(fraction(table.get(name)) for table in (best.mask, best.box, last.mask, last.box)))
        for name in names
    ]


def class_rows(evaluation: Evaluation) -> list[Row]:
    """Per class: name, objects, detections, mask AP, box AP; empty where they were not logged."""
    return [
        (
            str(row.get("name", "")),
            str(row.get("truth", "–")),
            str(row.get("detections", "–")),
            fraction(_ap(row.get("mask"))),
            fraction(_ap(row.get("box"))),
        )
        for row in evaluation.per_class
    ]


def _ap(table: object) -> object:
    return table.get("AP") if isinstance(table, dict) else None


def fraction(value: object) -> str:
    """Three digits; a dash where there is nothing to measure."""
    return f"{value:.3f}" if isinstance(value, int | float) else "–"


def mishaps(log: RunLog) -> tuple[list[str], list[Row]]:
    """What went wrong: sentences, and rows of step, what, why and pictures, the newest events first."""
    counts = Counter(event.name for event in log.events)
    sentences = [f"{name}: {count}" for name, count in counts.most_common()]
    sentences += [
        f"{name}: {count} of {len(log.series[name].values)} logged values are not finite"
        for name, count in log.broken().items()
    ]
    if log.damaged:
        sentences.append(
            f"metrics.jsonl: {log.damaged} damaged {'line' if log.damaged == 1 else 'lines'}, left out"
        )
    if len(log.events) > _LISTED:
        sentences.append(f"listed below: the last {_LISTED} of {len(log.events)} events")
    rows: list[Row] = [
        (str(e.step), e.name, e.reason, ", ".join(e.files[:_FILES]) + _more(len(e.files) - _FILES))
        for e in reversed(log.events[-_LISTED:])
    ]
    return sentences, rows


def _more(count: int) -> str:
    return f" and {count} more" if count > 0 else ""
