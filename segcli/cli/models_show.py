"""`segcli models show`: what a file holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from segcli.cli.options import common_options, conventions_option

if TYPE_CHECKING:
    from segcli.zoo import LoadedModel

_UNKNOWN = "unknown"


@click.command()
@click.argument("model", metavar="MODEL|ARCH")
@conventions_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@common_options
def show(model: str, conventions: str | None, as_json: bool) -> None:
    """Show what a checkpoint file, a RUN folder, named weights or an architecture is.

    Files of torchvision, detectron2, Detectron (Caffe2) and mmdetection are read too. Nothing in a file is ever run.

    \b
    Example:
      segcli models show run/best.safetensors
      segcli models show model_final.pth --json
    """
    from segcli.console import table
    from segcli.models import ARCHITECTURES

    facts = _of_architecture(model) if model in ARCHITECTURES else _of_weights(model, conventions)
    if as_json:
        click.echo(json.dumps(facts, indent=1, ensure_ascii=False))
    else:
        table(model, ["what", "value"], _rows(facts))


def _of_architecture(name: str) -> dict[str, Any]:
    from segcli.models import ARCHITECTURES, Anchors, MaskRCNN, ModelSpec

    row = ARCHITECTURES[name]
    spec = ModelSpec(name, 80, Anchors(), row.conventions)
    return {
        "architecture": name,
        "summary": row.summary,
        "parameters": sum(p.numel() for p in MaskRCNN(spec).parameters()),
        "parameters counted with": "80 classes",
        "recipe": vars(row.recipe),
        "conventions": row.conventions.to_dict(),
    }


def _of_weights(model: str, conventions: str | None) -> dict[str, Any]:
    """Also of weights whose conventions nothing tells: then it says so, and what to give."""
    from segcli.weights.evidence import UnknownConventionsError
    from segcli.zoo import load_model

    try:
        loaded = load_model(model, conventions)
    except UnknownConventionsError as error:
        return {**error.facts, "conventions": f"{_UNKNOWN}; give {error.choices}"}
    return _of_model(loaded)


def _of_model(loaded: LoadedModel) -> dict[str, Any]:
    from segcli.models.presets import name_of

    spec, categories, info = loaded.spec, loaded.categories, loaded.info
    told = ("family", "layout", "container", "licence", "source", "published as")
    return {
        "family": info.get("family", "segcli"),
        "layout": info.get("layout", "segcli"),
        "container": info.get("container", "safetensors"),
        "architecture": spec.architecture,
        "parameters": sum(p.numel() for p in loaded.build().parameters()),
        "input size": f"shorter side {spec.conventions.preprocess.min_size}, "
        f"longest {spec.conventions.preprocess.max_size} px",
        "sha256": loaded.sha256,
        "licence": info.get("licence") or _UNKNOWN,
        "source": info.get("source") or _UNKNOWN,
        "published as": info.get("published as"),
        "classes": [
            name for k, name in enumerate(categories.names) if not categories.is_placeholder(k)
        ],
        "classes from": info.get("classes", "the file's record"),
        "anchors": [list(sizes) for sizes in spec.anchors.sizes],
        "conventions name": name_of(spec.conventions),
        "conventions from": info.get("conventions", "the file's record"),
        "conventions": spec.conventions.to_dict(),
        "info": {
            k: v for k, v in info.items()
            if k not in {"categories", "classes", "conventions", *told}
        },
    }  # fmt: skip


def _rows(facts: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested records as `record.field` rows; what is not known has none."""
    for name, value in facts.items():
        if isinstance(value, dict):
            yield from _rows(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            yield prefix + name, ", ".join(map(str, value))
        elif value is not None:
            yield prefix + name, f"{value:,}" if type(value) is int else str(value)
