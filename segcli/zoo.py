"""MODEL on the command line: a checkpoint file, a RUN folder, weights by name; and new weights of an ARCH."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segcli.categories import Categories
from segcli.console import say
from segcli.download import fetch
from segcli.errors import ModelError, UsageError
from segcli.files import sha256, write_bytes
from segcli.home import cache_folder

if TYPE_CHECKING:
    from torch import Tensor

    from segcli.models import MaskRCNN, ModelSpec

DEFAULT_WEIGHTS = "torchvision/mask-rcnn-r50-fpn-coco"


@dataclass(frozen=True)
class PublishedWeights:
    """Weights that somebody published.

    Attributes:
        name: as given to `--model`; always holds a `/`.
        architecture: a name in `segcli.models.ARCHITECTURES`.
        box_ap: published, COCO val2017, fraction.
        mask_ap: likewise.
        megabytes: size of the download.
        licence: of the weights, as their publisher states it.
        address: where they are.
        hash_prefix: first digits of the file's SHA-256, from its published name.
    """

    name: str
    architecture: str
    box_ap: float
    mask_ap: float
    megabytes: float
    licence: str
    address: str
    hash_prefix: str


PUBLISHED: dict[str, PublishedWeights] = {
    DEFAULT_WEIGHTS: PublishedWeights(
        name=DEFAULT_WEIGHTS,
        architecture="mask-rcnn-r50-fpn",
        box_ap=0.379,
        mask_ap=0.346,
        megabytes=169.8,
        licence="BSD-3-Clause",
        address="https://download.pytorch.org/models/maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth",
        hash_prefix="bf2d0c1e",
    )
}


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """Weights in memory and all that is known about them.

    Attributes:
        spec: the network's record.
        categories: one per foreground slot.
        state: the state dict.
        source: what was loaded, as the user named it.
        sha256: of the file.
        info: training figures and the like.
    """

    spec: ModelSpec
    categories: Categories
    state: dict[str, Tensor]
    source: str
    sha256: str
    info: dict[str, Any] = field(default_factory=dict)

    def build(self, roi_align: str = "auto") -> MaskRCNN:
        """The network with these weights, in evaluation mode."""
        from segcli.models import MaskRCNN

        network = MaskRCNN(self.spec, roi_align)
        try:
            network.load_state_dict(self.state, strict=True)
        except RuntimeError as error:
            first = str(error).splitlines()[1:2] or [str(error)]
            raise ModelError(
                f"{self.source}: weights do not fit {self.spec.architecture} ({first[0].strip()})"
            ) from error
        return network.eval()


def is_path(model: str) -> bool:
    """Whether MODEL means a file or folder: it has a separator (and is no published name) or a suffix, or exists."""
    if model in PUBLISHED:
        return False
    separators = os.sep in model or "/" in model or bool(os.altsep and os.altsep in model)
    return separators or bool(Path(model).suffix) or Path(model).is_dir()


def load_model(model: str) -> LoadedModel:
    """Weights by file, RUN folder or published name.

    Raises:
        UsageError: nothing of that name.
        ModelError: it is there but cannot be used.
    """
    from segcli.models import ARCHITECTURES

    if model in PUBLISHED:
        return _load_published(PUBLISHED[model])
    if is_path(model):
        return _load_file(_checkpoint_of(Path(model)), model)
    if model in ARCHITECTURES:
        raise UsageError(
            f"{model} is an architecture without weights; make random ones with "
            f"`segcli models init {model} --classes N --output FILE`, or train it"
        )
    raise UsageError(_unknown(model))


def _unknown(model: str) -> str:
    names = ", ".join(PUBLISHED)
    return f"{model}: no such file, RUN folder or named weights; names are: {names} (`segcli models list`)"


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


def _load_file(path: Path, source: str) -> LoadedModel:
    from segcli.models.checkpoints import own

    if path.suffix.lower() == ".safetensors":
        try:
            checkpoint = own.read(path)
        except ValueError as error:
            raise ModelError(f"{path}: {error}") from error
        return LoadedModel(
            spec=_known(checkpoint.spec, path),
            categories=_categories(checkpoint.info, checkpoint.spec.classes, path),
            state=checkpoint.state,
            source=source,
            sha256=sha256(path),
            info=checkpoint.info,
        )
    return _load_torchvision(path, source)


def _known(spec: ModelSpec, path: Path) -> ModelSpec:
    from segcli.models import ARCHITECTURES

    if spec.architecture not in ARCHITECTURES:
        raise ModelError(f"{path}: architecture {spec.architecture!r} is unknown to this version")
    return spec


def _categories(info: dict[str, Any], classes: int, path: Path) -> Categories:
    entries = info.get("categories")
    if not isinstance(entries, list) or len(entries) != classes:
        raise ModelError(
            f"{path}: its record names no {classes} categories, one per class of the head"
        )
    return Categories(tuple(e["name"] for e in entries), tuple(e["id"] for e in entries))


def _load_torchvision(path: Path, source: str) -> LoadedModel:
    """A state dict of torchvision's R50-FPN with its COCO head.

    Nothing in such a file says eps or classes, so only the zoo's own shape is read, and the reading is said.
    """
    from segcli.models import Anchors, ModelSpec
    from segcli.models.checkpoints import torchvision
    from segcli.models.conventions import TORCHVISION_V1_COCO

    try:
        state = torchvision.read_state_dict(path)
    except ValueError as error:
        raise ModelError(f"{path}: {error}") from error
    if not torchvision.is_mask_rcnn(state):
        raise ModelError(f"{path}: not the state dict of a torchvision Mask R-CNN R50-FPN")
    classes = torchvision.foreground_classes(state)
    if classes != len(COCO_91.names):
        raise ModelError(
            f"{path}: has {classes} classes, and a bare state dict names none of them; "
            "only torchvision's own COCO weights (90 classes) are read"
        )
    say(f"{source}: read as torchvision's R50-FPN v1 COCO weights (batch-norm eps 0)")
    spec = ModelSpec("mask-rcnn-r50-fpn", classes, Anchors(), TORCHVISION_V1_COCO)
    return LoadedModel(spec, COCO_91, state, source, sha256(path), {"licence": "BSD-3-Clause"})


def _load_published(weights: PublishedWeights) -> LoadedModel:
    folder = cache_folder("weights")
    target = folder / weights.address.rsplit("/", 1)[-1]
    fetch(weights.address, target, hash_prefix=weights.hash_prefix)
    return _load_torchvision(target, weights.name)


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


_COCO_NAMES = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,N/A,stop sign,"
    "parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,N/A,backpack,umbrella,N/A,N/A,"
    "handbag,tie,suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,"
    "tennis racket,bottle,N/A,wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,"
    "hot dog,pizza,donut,cake,chair,couch,potted plant,bed,N/A,dining table,N/A,N/A,toilet,N/A,tv,laptop,mouse,"
    "remote,keyboard,cell phone,microwave,oven,toaster,sink,refrigerator,N/A,book,clock,vase,scissors,teddy bear,"
    "hair drier,toothbrush"
)
COCO_91 = Categories.from_names(_COCO_NAMES.split(","))
