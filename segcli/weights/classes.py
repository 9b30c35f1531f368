"""Names of the classes that weights know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segcli.categories import Categories

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
"""torchvision's COCO head: a slot per id, ten of them never annotated."""
_USED = [label for label in range(len(COCO_91)) if not COCO_91.is_placeholder(label)]
COCO_80 = Categories(
    tuple(COCO_91.names[label] for label in _USED), tuple(COCO_91.ids[label] for label in _USED)
)
"""detectron2's and mmdetection's COCO head: the annotated classes in the order of their ids."""
_KEYS = ("classes", "CLASSES", "categories", "class_names", "thing_classes")


def classes_of(count: int, family: str, beside: Mapping[str, Any]) -> tuple[Categories, str]:
    """Names for the classes of a file, and where they come from.

    Args:
        count: foreground classes of the heads.
        family: whose weights.
        beside: what the file holds beside its weights.
    """
    names = _stored(beside)
    if names is not None and len(names) == count:
        spaced = tuple(name.replace("_", " ") for name in names)  # mmdetection 1.x: traffic_light
        for known in (COCO_80, COCO_91):
            if spaced == known.names:
                return known, "the file's own list"
        return Categories.from_names(names), "the file's own list"
    coco = COCO_91 if family == "torchvision" else COCO_80
    if count == len(coco):
        return coco, f"COCO's, which {count} classes stand for in {family}"
    wrong = "" if names is None else f" (its list has {len(names)})"
    return (
        Categories.from_names([f"class {k + 1}" for k in range(count)]),
        f"numbered: nothing in the file names its {count} classes{wrong}",
    )


def _stored(beside: Mapping[str, Any]) -> list[str] | None:
    """The class names that a family, or a user's own program, put beside the weights."""
    places = [beside, beside.get("meta"), beside.get("dataset_meta")]
    meta = beside.get("meta")
    if isinstance(meta, dict):
        places.append(meta.get("dataset_meta"))
    for place in places:
        for key in _KEYS:
            names = place.get(key) if isinstance(place, dict) else None
            if isinstance(names, str):
                names = [names]
            if isinstance(names, list | tuple) and names and all(isinstance(n, str) for n in names):
                return without_background(list(names))
    return None


def without_background(names: list[str]) -> list[str]:
    """Names without the one that torchvision's lists start with, `__background__`."""
    return names[1:] if names[0] in ("__background__", "background") else names
