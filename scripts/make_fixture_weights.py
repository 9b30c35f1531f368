#!/usr/bin/env python3
"""Make weights for measurements: seeded ones of a fixtures folder's recipe, as a file for `--model`.

    scripts/make_fixture_weights.py PATH-TO-FIXTURES tv_maskrcnn_resnet50_fpn weights.safetensors
    segcli bench predict photos --model weights.safetensors

Only torchvision's Mask R-CNN R50-FPN of 90 classes (v1: frozen batch norms, eps 0) is known here. The folder holds
`recipe.py`, which is run, and NAME/state_dict.json with the digest that the weights must have.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from segcli.errors import ModelError, SegcliError, UsageError
from segcli.models import Anchors, ModelSpec
from segcli.models.checkpoints.families import identify
from segcli.models.conventions import TORCHVISION_V1_COCO
from segcli.zoo import COCO_91, LoadedModel, save_model


def make(fixtures: Path, name: str) -> LoadedModel:
    """The weights of one fixture.

    Raises:
        UsageError: the folder does not hold such a fixture.
        ModelError: the recipe gives other weights than the fixture's, or they are of another network.
    """
    record = _record(fixtures / name / "state_dict.json")
    recipe: Any = _load(fixtures / "recipe.py")
    shapes = {key: entry["shape"] for key, entry in record["tensors"].items()}
    arrays = recipe.make_state_dict(shapes, seed=0, config=name)
    digest = recipe.digest(arrays)
    if digest != record["digest"]:
        raise ModelError(
            f"{name}: the recipe gives weights of digest {digest}, not {record['digest']}"
        )
    state = {key: torch.from_numpy(array) for key, array in arrays.items()}
    classes = len(COCO_91)
    expected = f"{name}: not torchvision's Mask R-CNN R50-FPN with {classes} classes"
    try:
        found = identify(state)
    except ValueError as error:
        raise ModelError(f"{expected} ({error})") from error
    wanted = ("torchvision", "mask-rcnn-r50-fpn", classes)
    if (found.family, found.architecture, found.classes) != wanted:
        raise ModelError(expected)
    spec = ModelSpec("mask-rcnn-r50-fpn", classes, Anchors(), TORCHVISION_V1_COCO)
    model = LoadedModel(spec, COCO_91, state, name, "", {"recipe": name, "digest": digest})
    model.build()  # weights that do not fit show here
    return model


def _record(path: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read ({error.strerror}); give FIXTURES and NAME"
        ) from error
    return record


def _load(path: Path) -> ModuleType:
    """The recipe as a module, without leaving compiled files beside it."""
    spec = importlib.util.spec_from_file_location("recipe", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UsageError(f"{path}: no such file; expected the recipe of the fixtures")
    module = importlib.util.module_from_spec(spec)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module


def main() -> int:
    """Read the arguments, write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("fixtures", type=Path, help="folder with recipe.py")
    parser.add_argument("name", help="of the fixture: tv_maskrcnn_resnet50_fpn")
    parser.add_argument("out", type=Path, help="the file to write, .safetensors")
    given = parser.parse_args()
    if given.out.suffix != ".safetensors":
        parser.error(f"{given.out}: expected a name that ends with .safetensors")
    try:
        save_model(given.out, make(given.fixtures, given.name))
    except SegcliError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
