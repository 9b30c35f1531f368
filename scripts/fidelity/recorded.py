"""Recorded outputs of the families' real code, the weights they were made with, and our network with these weights."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segcli.models import PRESETS, Anchors, MaskRCNN, ModelSpec
from segcli.models.checkpoints import detectron2, mmdetection, torchvision

_COCO, _COCO_SLOTS = 80, 90
IMAGES = {
    "a": "a_640x480", "b": "b_427x640", "c": "c_500x333", "d": "d_1920x1080", "e": "e_exif6_222x333",
}  # fmt: skip


@dataclass(frozen=True)
class Config:
    """One recorded network.

    Attributes:
        name: of the fixture's folder.
        architecture: ours.
        preset: of conventions.
        first_label: what the family calls class 0.
        images: letters of the pictures it was recorded on.
    """

    name: str
    architecture: str
    preset: str
    first_label: int
    images: str

    @property
    def family(self) -> str:
        """First part of the preset's name."""
        return self.preset.partition("-")[0]


CONFIGS = {
    config.name: config
    for config in (
        Config("d2_mask_rcnn_R_50_FPN_3x", "mask-rcnn-r50-fpn", "detectron2-r50", 0, "abcde"),
        Config("mm_mask_rcnn_r50_fpn", "mask-rcnn-r50-fpn", "mmdetection-pytorch", 0, "abcde"),
        Config(
            "d2_mask_rcnn_X_101_32x8d_FPN_3x",
            "mask-rcnn-x101-32x8d-fpn",
            "detectron2-x101",
            0,
            "abc",
        ),
        Config("mm_mask_rcnn_r50_caffe_fpn", "mask-rcnn-r50-fpn", "mmdetection-caffe", 0, "abc"),
        Config(
            "mm_mask_rcnn_x101_32x4d_fpn",
            "mask-rcnn-x101-32x4d-fpn",
            "mmdetection-pytorch",
            0,
            "abc",
        ),
        Config("mm_mask_rcnn_r101_fpn", "mask-rcnn-r101-fpn", "mmdetection-pytorch", 0, "abc"),
        Config("tv_maskrcnn_resnet50_fpn", "mask-rcnn-r50-fpn", "torchvision-v1", 1, "abc"),
        Config("tv_maskrcnn_resnet50_fpn_v2", "mask-rcnn-r50-fpn-v2", "torchvision-v2", 1, "abc"),
    )
}
_TO_UNIFIED: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "detectron2": detectron2.to_unified,
    "mmdetection": mmdetection.to_unified,
    "torchvision": torchvision.to_unified,
}


def native_weights(fixtures: Path, name: str) -> dict[str, Tensor]:
    """Seeded weights under the family's own names.

    Raises:
        ValueError: the recipe gives others than those that the outputs were recorded with.
    """
    recipe: Any = _recipe(fixtures / "recipe.py")
    record = json.loads((fixtures / name / "state_dict.json").read_text(encoding="utf-8"))
    shapes = {key: entry["shape"] for key, entry in record["tensors"].items()}
    arrays = recipe.make_state_dict(shapes, seed=0, config=name)
    digest = recipe.digest(arrays)
    if digest != record["digest"]:
        raise ValueError(f"{name}: weights of digest {digest}, expected {record['digest']}")
    return {key: torch.from_numpy(array) for key, array in arrays.items()}


def network(fixtures: Path, config: Config, roi_align: str = "auto") -> MaskRCNN:
    """Our network with a fixture's weights, in evaluation mode."""
    classes = _COCO if config.first_label == 0 else _COCO_SLOTS
    spec = ModelSpec(config.architecture, classes, Anchors(), PRESETS[config.preset])
    made = MaskRCNN(spec, roi_align)
    made.load_state_dict(_TO_UNIFIED[config.family](native_weights(fixtures, config.name)))
    return made.eval()


@dataclass(frozen=True, eq=False)
class Record:
    """What a family's code gave for one picture.

    Attributes:
        arrays: samples of every stage, see the fixtures' README.
        meta: shapes, sums of whole tensors, run lengths.
        picture: the file.
    """

    arrays: dict[str, NDArray[Any]]
    meta: dict[str, Any]
    picture: Path


def record(fixtures: Path, config: Config, image: str) -> Record:
    """The outputs recorded for one picture."""
    with np.load(fixtures / config.name / f"{IMAGES[image]}.npz") as file:
        arrays = {name: file[name] for name in file.files}
    meta = json.loads(str(arrays.pop("meta")))
    return Record(arrays, meta, fixtures / "images" / f"{IMAGES[image]}.jpg")


def _recipe(path: Path) -> Any:
    """The recipe as a module, without leaving compiled files beside it."""
    spec = importlib.util.spec_from_file_location("recipe", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path}: no such file; expected the recipe of the fixtures")
    module = importlib.util.module_from_spec(spec)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module
