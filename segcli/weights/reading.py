"""A weight file of any family, loaded: what it is, its classes, its conventions."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from segcli.categories import Categories
from segcli.console import say
from segcli.errors import ModelError
from segcli.files import sha256
from segcli.models import ARCHITECTURES, Anchors, Conventions, ModelSpec
from segcli.models.checkpoints import own
from segcli.models.checkpoints.containers import read_container
from segcli.models.checkpoints.families import Weights, identify
from segcli.published import PublishedWeights
from segcli.weights.classes import classes_of
from segcli.weights.evidence import (
    Evidence,
    asked_conventions,
    describe,
    find_conventions,
    published_row,
)
from segcli.weights.findings import Finding
from segcli.weights.loaded import LoadedModel
from segcli.weights.mmdetection_config import LEGACY_NOTE


def read_weights(
    path: Path,
    source: str,
    conventions: str | None = None,
    *,
    published: PublishedWeights | None = None,
) -> LoadedModel:
    """Weights of a file, the file of any family.

    Args:
        path: the file.
        source: what the user called it.
        conventions: a preset or file that wins over all that the file says; None = what is found.
        published: the row of the published table that the file was fetched by; None = looked for by its hash.

    Raises:
        UsageError: no such conventions.
        ModelError: the file cannot be used; one line says why.
    """
    asked = None if conventions is None else asked_conventions(conventions)
    with ThreadPoolExecutor(1) as pool:  # hashing lets go of the interpreter, so both run at once
        hashing = pool.submit(sha256, path)
        try:
            if path.suffix.lower() == ".safetensors" and own.is_own(path):
                return _own(path, source, asked, hashing.result())
            container = read_container(path)
            weights = identify(container.state)
        except ValueError as error:
            raise ModelError(f"{path}: {error}") from error
        digest = hashing.result()
    published = published or published_row(path, digest)
    evidence = Evidence(path, weights, container.beside, published)
    found = asked or find_conventions(evidence)
    categories, naming = classes_of(weights.classes, weights.family, container.beside)
    spec = _spec(weights, found, path)
    _say(source, weights, found, naming)
    info: dict[str, Any] = {
        "family": weights.family,
        "layout": weights.layout,
        "container": container.kind,
        "conventions": describe(found),
        "classes": naming,
    }
    if published is not None:
        info |= {"published as": published.name, "source": published.address}
        info |= {} if published.licence is None else {"licence": published.licence}
    return LoadedModel(spec, categories, weights.state, source, digest, info)


def _own(path: Path, source: str, asked: Finding | None, digest: str) -> LoadedModel:
    checkpoint = own.read(path)
    spec = checkpoint.spec
    if spec.architecture not in ARCHITECTURES:
        raise ModelError(f"{path}: architecture {spec.architecture!r} is unknown to this version")
    if asked is not None:
        layout = spec.conventions.numerics.class_layout
        spec = replace(spec, conventions=_with_layout(asked.conventions, layout))
    categories = _recorded_categories(checkpoint.info, spec.classes, path)
    state = {name: _unpacked(tensor) for name, tensor in checkpoint.state.items()}
    return LoadedModel(spec, categories, state, source, digest, checkpoint.info)


def _unpacked(tensor: Tensor) -> Tensor:
    """Weights that were packed in 16 bits, as fp32."""
    return tensor.float() if tensor.is_floating_point() else tensor


def _recorded_categories(info: dict[str, Any], classes: int, path: Path) -> Categories:
    entries = info.get("categories")
    if not isinstance(entries, list) or len(entries) != classes:
        raise ModelError(
            f"{path}: its record names no {classes} categories, one per class of the head"
        )
    try:
        return Categories(tuple(e["name"] for e in entries), tuple(e["id"] for e in entries))
    except (KeyError, TypeError) as error:
        raise ModelError(f"{path}: damaged segcli record (a category without {error})") from error


def _spec(weights: Weights, found: Finding, path: Path) -> ModelSpec:
    """The network; where the background lies is told by the rows of the heads, whatever the conventions say."""
    if weights.architecture not in ARCHITECTURES:
        raise ModelError(f"{path}: {weights.architecture} is not supported by this version")
    anchors = found.anchors or Anchors()
    conventions = _with_layout(found.conventions, weights.class_layout)
    per_place = len(anchors.sizes[0]) * len(anchors.aspect_ratios)
    rows = len(weights.state["rpn.head.cls_logits.weight"])
    if rows != per_place:
        raise ModelError(
            f"{path}: its RPN has {rows} anchors per place, its conventions say {per_place}; "
            "give the config of its training by --conventions"
        )
    return ModelSpec(weights.architecture, weights.classes, anchors, conventions)


def _with_layout(conventions: Conventions, layout: Any) -> Conventions:
    return replace(conventions, numerics=replace(conventions.numerics, class_layout=layout))


def _say(source: str, weights: Weights, found: Finding, naming: str) -> None:
    say(f"{source}: {weights.layout} weights; conventions {describe(found)}; classes: {naming}")
    notes = list(found.notes)
    if weights.layout == "mmdetection 1.x":
        notes.append(LEGACY_NOTE)
    for note in notes:
        say(f"{source}: {note}")
