"""What a detectron2 `config.yaml` says of the numerics that weights do not show."""

from __future__ import annotations

from pathlib import Path
from reprlib import repr as short
from typing import Any

import yaml

from segcli.models import Anchors
from segcli.models.presets import preset
from segcli.weights.findings import Finding, is_number, number, numbers, require

_BASE_FPN = "Base-RCNN-FPN.yaml"
_MOST_BASES = 10
_MOST_SETTINGS = 5000
_LARGEST = 1 << 20  # bytes; a full dump has some 10 kB
# detectron2/config/defaults.py with configs/Base-RCNN-FPN.yaml on top: what a file that starts from it may leave out
_DEFAULTS: dict[str, Any] = {
    "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
    "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
    "MODEL.PIXEL_MEAN": [103.53, 116.28, 123.675],
    "MODEL.PIXEL_STD": [1.0, 1.0, 1.0],
    "MODEL.RESNETS.STRIDE_IN_1X1": True,
    "MODEL.RESNETS.NORM": "FrozenBN",
    "MODEL.RESNETS.DEFORM_ON_PER_STAGE": [False] * 4,
    "MODEL.RESNETS.RES5_DILATION": 1,
    "MODEL.FPN.NORM": "",
    "MODEL.FPN.FUSE_TYPE": "sum",
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32], [64], [128], [256], [512]],
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[0.5, 1.0, 2.0]],
    "MODEL.ANCHOR_GENERATOR.OFFSET": 0.0,
    "MODEL.RPN.BBOX_REG_WEIGHTS": [1.0, 1.0, 1.0, 1.0],
    "MODEL.RPN.NMS_THRESH": 0.7,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 1000,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 1000,
    "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": 0.5,
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": [10.0, 10.0, 5.0, 5.0],
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlignV2",
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 0,
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": "ROIAlignV2",
    "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": 0,
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 14,
    "INPUT.FORMAT": "BGR",
    "INPUT.MIN_SIZE_TEST": 800,
    "INPUT.MAX_SIZE_TEST": 1333,
    "TEST.DETECTIONS_PER_IMAGE": 100,
}  # fmt: skip
_FIXED = (
    "MODEL.META_ARCHITECTURE", "MODEL.BACKBONE.NAME", "MODEL.FPN.NORM", "MODEL.FPN.FUSE_TYPE",
    "MODEL.RESNETS.DEFORM_ON_PER_STAGE", "MODEL.RESNETS.RES5_DILATION", "MODEL.RPN.BBOX_REG_WEIGHTS",
    "MODEL.ROI_HEADS.NAME", "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS", "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION",
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION",
)  # fmt: skip
_TESTED = ("MODEL.RPN.NMS_THRESH", "MODEL.RPN.PRE_NMS_TOPK_TEST", "MODEL.RPN.POST_NMS_TOPK_TEST")


def read_yaml(path: Path) -> dict[str, Any]:
    """A config with the files that it is based on, flat: `MODEL.PIXEL_MEAN` and the like to plain values.

    `_BASE_` is looked for relative to the file; where detectron2's own `Base-RCNN-FPN.yaml` is not there, what it
    says is known.

    Raises:
        ValueError: no detectron2 config, a base is missing, or bases go in a circle.
    """
    flat: dict[str, Any] = {}
    current: Path | None = path
    for _ in range(_MOST_BASES):
        assert current is not None
        table = _load(current)
        base = table.pop("_BASE_", None)
        flat = {**_flatten(table), **flat}
        if base is None:
            return flat
        current = _base_path(current, base)
        if current is None:
            return flat
    raise ValueError(f"{path.name}: more than {_MOST_BASES} bases, or they go in a circle")


def _load(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError(f"{path.name}: over 1 MB, expected a detectron2 config")
        table = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path.name}: no plain YAML ({reason[:200]})") from error
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path.name}: cannot be read ({error})") from error
    if not isinstance(table, dict) or not ({"MODEL", "_BASE_"} & table.keys()):
        raise ValueError(f"{path.name}: no detectron2 config (no MODEL in it)")
    return table


def _base_path(path: Path, base: Any) -> Path | None:
    if not isinstance(base, str) or "://" in base:
        raise ValueError(f"{path.name}: _BASE_ is {short(base)}, expected the name of a file")
    found = path.parent / Path(base).expanduser()
    if found.is_file():
        return found
    if Path(base).name == _BASE_FPN:
        return None
    raise ValueError(
        f"{path.name}: its _BASE_ {base} is not there; put it where it is looked for: {found}"
    )


def _flatten(table: dict[Any, Any]) -> dict[str, Any]:
    """Nested tables as dotted names; YAML's references can nest one in itself, so there is a limit."""
    flat: dict[str, Any] = {}
    waiting: list[tuple[str, dict[Any, Any]]] = [("", table)]
    while waiting:
        prefix, part = waiting.pop()
        for key, value in part.items():
            name = f"{prefix}{key}"
            if isinstance(value, dict):
                waiting.append((f"{name}.", value))
            else:
                flat[name] = _plain(value)
        if len(flat) + len(waiting) > _MOST_SETTINGS or len(prefix) > _MOST_SETTINGS:
            raise ValueError("more settings than any detectron2 config has")
    return flat


def _plain(value: Any) -> Any:
    """Tuples that yacs wrote as text, `(640, 672)`, as lists."""
    if isinstance(value, str) and value.startswith("(") and value.endswith(")"):
        parts = [part.strip() for part in value[1:-1].split(",") if part.strip()]
        return [yaml.safe_load(part) for part in parts]
    return value


def finding(config: dict[str, Any], origin: str) -> Finding:
    """Conventions and anchors by a config.

    Raises:
        ValueError: a setting that is not supported.
    """
    known = {**_DEFAULTS, **config}
    for name in _FIXED:
        require(known[name], _DEFAULTS[name], name)
    box, mask = (
        (
            known[f"MODEL.ROI_{head}_HEAD.POOLER_TYPE"],
            known[f"MODEL.ROI_{head}_HEAD.POOLER_SAMPLING_RATIO"],
        )
        for head in ("BOX", "MASK")
    )
    if box != mask or box[0] not in ("ROIAlign", "ROIAlignV2"):
        raise ValueError(
            f"pooling {short(box[0])} and {short(mask[0])} is not supported, expected ROIAlignV2 in both heads"
        )
    order = known["INPUT.FORMAT"]
    if order not in ("BGR", "RGB"):
        raise ValueError(f"INPUT.FORMAT is {short(order)}, expected BGR or RGB")
    if not isinstance(known["MODEL.RESNETS.STRIDE_IN_1X1"], bool):
        raise ValueError("MODEL.RESNETS.STRIDE_IN_1X1 is neither true nor false")
    changes = {
        "preprocess": {
            "channel_order": order.lower(),
            "mean": numbers(known["MODEL.PIXEL_MEAN"], 3, "MODEL.PIXEL_MEAN"),
            "std": numbers(known["MODEL.PIXEL_STD"], 3, "MODEL.PIXEL_STD"),
            "min_size": _whole(known, "INPUT.MIN_SIZE_TEST"),
            "max_size": _whole(known, "INPUT.MAX_SIZE_TEST"),
        },
        "numerics": {
            "stride_in_1x1": known["MODEL.RESNETS.STRIDE_IN_1X1"],
            "anchor_offset": number(known["MODEL.ANCHOR_GENERATOR.OFFSET"], "OFFSET"),
            "roi_aligned": box[0] == "ROIAlignV2",
            "roi_sampling_ratio": _whole(known, "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO"),
        },
        "postprocess": {
            "nms_iou": number(known["MODEL.ROI_HEADS.NMS_THRESH_TEST"], "NMS_THRESH_TEST"),
            "max_detections": _whole(known, "TEST.DETECTIONS_PER_IMAGE"),
        },
    }
    notes = [
        f"{n} is {short(known[n])}, here {_DEFAULTS[n]}"
        for n in _TESTED
        if known[n] != _DEFAULTS[n]
    ]
    return Finding(preset("detectron2-r50").changed(changes), origin, _anchors(known), tuple(notes))


def _whole(known: dict[str, Any], name: str) -> int:
    if not isinstance(known[name], int) or isinstance(known[name], bool):
        raise ValueError(f"{name} is {short(known[name])}, expected a whole number")
    return int(known[name])


def _anchors(known: dict[str, Any]) -> Anchors:
    """One list of sizes per level, or one for all; the ratios must be the same on every level."""
    name = "MODEL.ANCHOR_GENERATOR"
    sizes, ratios = known[f"{name}.SIZES"], known[f"{name}.ASPECT_RATIOS"]
    for value in (sizes, ratios):
        if (
            not isinstance(value, list)
            or not value
            or not all(isinstance(v, list) and v for v in value)
        ):
            raise ValueError(f"{name}: {short(value)}, expected a list per level")
    if any(level != ratios[0] for level in ratios) or len(sizes) not in (1, 5):
        raise ValueError(f"{name}: sizes {short(sizes)}, ratios {short(ratios)} are not supported")
    levels = sizes * 5 if len(sizes) == 1 else sizes
    if not all(is_number(side) and float(side).is_integer() for level in levels for side in level):
        raise ValueError(f"{name}.SIZES: {short(sizes)}, expected whole pixels")
    return Anchors(
        tuple(tuple(int(side) for side in level) for level in levels),
        tuple(numbers(ratios[0], len(ratios[0]), f"{name}.ASPECT_RATIOS")),
    )
