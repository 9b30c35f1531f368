"""MODEL on the command line: a checkpoint file, a RUN folder, weights by name; and new weights of an ARCH."""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path

from segcli.categories import Categories
from segcli.embedded import EMBEDDED
from segcli.errors import ModelError, UsageError
from segcli.files import write_bytes
from segcli.published import PUBLISHED, PublishedWeights, nearest
from segcli.published.fetching import fetch_weights
from segcli.weights.classes import COCO_80, COCO_91
from segcli.weights.loaded import LoadedModel

__all__ = [
    "COCO_80",
    "COCO_91",
    "DEFAULT_WEIGHTS",
    "PUBLISHED",
    "LoadedModel",
    "PublishedWeights",
    "is_path",
    "load_model",
    "new_model",
    "save_model",
]

DEFAULT_WEIGHTS = "torchvision/mask-rcnn-r50-fpn-coco"


def is_path(model: str) -> bool:
    """Whether MODEL means a file or folder: it has a separator (and is no published name) or a suffix, or exists."""
    if model in PUBLISHED or model in EMBEDDED:
        return False
    separators = os.sep in model or "/" in model or bool(os.altsep and os.altsep in model)
    return separators or bool(Path(model).suffix) or Path(model).is_dir()


def load_model(model: str, conventions: str | None = None) -> LoadedModel:
    """Weights by file of any family, RUN folder, or published or embedded name.

    Args:
        model: MODEL.
        conventions: a preset's name or a file that wins over what is found; None = what is found.

    Raises:
        UsageError: nothing of that name.
        ModelError: it is there but cannot be used.
    """
    from segcli.models import ARCHITECTURES
    from segcli.weights.reading import read_weights

    if model in PUBLISHED:
        return _load_published(PUBLISHED[model], conventions)
    if model in EMBEDDED:
        return read_weights(EMBEDDED[model].path, model, conventions)
    if is_path(model):
        return read_weights(_checkpoint_of(Path(model)), model, conventions)
    if model in ARCHITECTURES:
        raise UsageError(
            f"{model} is an architecture without weights; make random ones with "
            f"`segcli models init {model} --classes N --output FILE`, or train it"
        )
    raise UsageError(_unknown(model))


def _unknown(model: str) -> str:
    near = [*get_close_matches(model, EMBEDDED), *nearest(model)]
    hint = f"; nearest names: {', '.join(near)}" if near else ""
    return f"{model}: no such file, RUN folder or named weights{hint} (`segcli models list`)"


def _checkpoint_of(path: Path) -> Path:
    """A file itself; of a RUN folder its best weights."""
    if path.is_dir():
        best = path / "best.safetensors"
        if not best.is_file():
            raise UsageError(
                f"{path}: expected a RUN folder with best.safetensors, found none in it"
            )
        return best
    if not path.is_file():
        raise UsageError(_unknown(str(path)))
    return path


def _load_published(weights: PublishedWeights, conventions: str | None) -> LoadedModel:
    from segcli.weights.reading import read_weights

    if weights.reason is not None:
        raise ModelError(f"{weights.name}: segcli cannot run these weights ({weights.reason})")
    path = fetch_weights(weights)
    return read_weights(path, weights.name, conventions, published=weights)


def new_model(architecture: str, categories: Categories, *, seed: int) -> LoadedModel:
    """Random weights of an architecture with its own anchors and conventions; the same seed gives the same weights.

    Raises:
        UsageError: no such architecture.
    """
    import torch

    from segcli.models import ARCHITECTURES, Anchors, MaskRCNN, ModelSpec

    if architecture not in ARCHITECTURES:
        raise UsageError(f"{architecture}: no such architecture; known: {', '.join(ARCHITECTURES)}")
    row = ARCHITECTURES[architecture]
    spec = ModelSpec(architecture, len(categories), Anchors(), row.conventions)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = MaskRCNN(spec).state_dict()
    return LoadedModel(spec, categories, state, architecture, "", {"seed": seed})


def save_model(path: Path, model: LoadedModel) -> None:
    """Write weights as safetensors with their record, atomically."""
    from segcli.models.checkpoints import own

    info = {**model.info, "categories": model.categories.to_coco()}
    write_bytes(path, own.encode(model.spec, info, model.state))
