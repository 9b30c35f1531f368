"""What the contestants of `segcli bench train` train on: a dataset's pictures, or made-up ones, and a network."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from segcli.annotations import Picture
from segcli.bench.trainers import TrainTask
from segcli.data.coco import read_coco
from segcli.errors import UsageError
from segcli.masks import Masks
from segcli.models import ARCHITECTURES, Conventions, MaskRCNN, ModelSpec
from segcli.models.conventions import Numerics
from segcli.preprocess import with_sizes
from segcli.zoo import LoadedModel, load_model, new_model

_SIZE = (120, 160)  # of made-up pictures, height and width


@dataclass(frozen=True, eq=False)
class TrainInputs:
    """What every contestant starts from.

    Attributes:
        pictures: each with as many objects as were asked for.
        spec: the network, by torchvision's conventions.
        state: its weights.
    """

    pictures: tuple[Picture, ...]
    spec: ModelSpec
    state: dict[str, Tensor]

    @property
    def frozen(self) -> bool:
        """Whether stem and first stage keep their weights."""
        return ARCHITECTURES[self.spec.architecture].norm == "frozen_batch"

    def batch(self, step: int, size: int) -> tuple[Picture, ...]:
        """The pictures of one step: the same few again and again, in order."""
        count = len(self.pictures)
        return tuple(self.pictures[(step * size + i) % count] for i in range(size))


def read_inputs(task: TrainTask) -> TrainInputs:
    """Pictures and network.

    Raises:
        UsageError: fewer pictures than asked for.
    """
    dataset = read_coco(Path(task.dataset), None if task.images is None else Path(task.images))
    rich = [p for p in dataset.pictures if _objects(p) >= task.instances]
    if len(rich) < task.pictures:
        raise UsageError(
            f"{task.dataset}: found {len(rich)} pictures with {task.instances} objects or more, expected "
            f"{task.pictures}; give a smaller --pictures or --instances"
        )
    model = _model(task.model, dataset.categories)
    spec = _plain(model.spec, len(dataset.categories), task)
    return TrainInputs(tuple(rich[: task.pictures]), spec, _fitting(model, spec))


def _objects(picture: Picture) -> int:
    return sum(not a.iscrowd for a in picture.annotations)


def _model(name: str, categories: Any) -> LoadedModel:
    """Weights; random ones of a deep residual network are scaled to where trained ones are."""
    if name not in ARCHITECTURES:
        return load_model(name)
    model = new_model(name, categories, seed=0)
    for key, tensor in model.state.items():
        if key.endswith("bn3.weight"):
            tensor.mul_(0.25)  # else random residual blocks add up to huge numbers
    return model


def _plain(spec: ModelSpec, classes: int, task: TrainTask) -> ModelSpec:
    """The same network by torchvision's numerics, which alone both contestants can compute."""
    own = spec.conventions
    sizes = with_sizes(
        Conventions().preprocess, task.min_size or own.preprocess.min_size,
        task.max_size or own.preprocess.max_size,
    )  # fmt: skip
    numerics = Numerics(bn_eps=own.numerics.bn_eps, nms_mode="by_size")
    return replace(spec, classes=classes, conventions=Conventions(sizes, numerics))


def _fitting(model: LoadedModel, spec: ModelSpec) -> dict[str, Tensor]:
    """The weights that fit, and random ones for other classes."""
    fresh: dict[str, Tensor] = MaskRCNN(spec).state_dict()
    given = {k: v for k, v in model.state.items() if k in fresh and v.shape == fresh[k].shape}
    return {**fresh, **given}


def made_up_dataset(folder: Path, pictures: int, instances: int) -> Path:
    """Write pictures of seeded bright ellipses of two classes, and their masks as RLE; the annotation file."""
    folder.mkdir(parents=True)
    (folder / "images").mkdir()
    random = np.random.default_rng(0)
    table: dict[str, Any] = {
        "images": [], "annotations": [],
        "categories": [{"id": i, "name": f"kind {i}"} for i in (1, 2)],
    }  # fmt: skip
    height, width = _SIZE
    y, x = np.mgrid[:height, :width]
    for number in range(1, pictures + 1):
        pixels = random.integers(60, 120, (height, width, 3), dtype=np.uint8)
        name = f"{number}.png"
        table["images"].append({"id": number, "file_name": name, "height": height, "width": width})
        for _ in range(instances):
            cy, cx = random.integers(12, height - 12), random.integers(12, width - 12)
            ry, rx = random.integers(3, 12, 2)
            mask = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1
            kind = int(random.integers(1, 3))
            pixels[mask] += np.uint8(60 * kind)
            table["annotations"].append(_row(table, number, kind, mask))
        Image.fromarray(pixels).save(folder / "images" / name)
    path = folder / "instances.json"
    path.write_text(json.dumps(table), encoding="utf-8")
    return path


def _row(table: dict[str, Any], image: int, kind: int, mask: Any) -> dict[str, Any]:
    masks = Masks.from_dense(mask[None])
    x1, y1, x2, y2 = masks.boxes()[0].tolist()
    return {
        "id": len(table["annotations"]) + 1,
        "image_id": image,
        "category_id": kind,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": int(mask.sum()),
        "iscrowd": 0,
        "segmentation": masks.coco(0),
    }
