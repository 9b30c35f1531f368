"""What an mmdetection config (1.x, 2.x, 3.x) says of the numerics that weights do not show."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from reprlib import repr as short
from typing import Any

from segcli.models import Anchors
from segcli.models.presets import preset
from segcli.weights.findings import Finding, is_number, number, numbers, require

_TWO_STAGE = "MaskRCNN"
_MOST_STEPS = 1000
_STDS = [0.1, 0.1, 0.2, 0.2]
_RPN_STDS = [1.0, 1.0, 1.0, 1.0]
LEGACY_NOTE = (
    "mmdetection 1.x counted a box's last pixel into its size and shifted anchors by half a pixel; "
    "these weights run by the formulas of 2.x, so boxes may differ by about a pixel from what 1.x printed"
)


def finding(config: dict[str, Any], origin: str) -> Finding:
    """Conventions and anchors by a config.

    Args:
        config: its variables, as `python_config.read_config` gives them.
        origin: for messages.

    Raises:
        ValueError: a setting that is not supported, or one that is needed is not in it.
    """
    model = _table(config.get("model"), "model")
    require(str(model.get("type")).rpartition(".")[2], _TWO_STAGE, "model.type")
    before = _preprocess(config, model)
    backbone = _table(model.get("backbone"), "model.backbone")
    numerics: dict[str, Any] = {
        "stride_in_1x1": _style(backbone) == "caffe",
        "bn_eps": number(_or_empty(backbone.get("norm_cfg")).get("eps", 1e-5), "norm_cfg.eps"),
        **_pooling(model),
    }
    anchors, offset = _anchors(_or_empty(model.get("rpn_head")))
    numerics["anchor_offset"] = offset
    after, notes = _testing(config, model)
    _require_coders(model)
    changes = {"preprocess": before, "numerics": numerics, "postprocess": after}
    return Finding(preset("mmdetection-pytorch").changed(changes), origin, anchors, tuple(notes))


def _preprocess(config: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
    """Sizes, padding, mean, std and channels: 3.x keeps them in `data_preprocessor`, 1.x and 2.x in the pipeline."""
    pipeline = _test_pipeline(config)
    resize = _step(pipeline, "Resize", "FixScaleResize")
    scale = resize.get("scale", resize.get("img_scale"))
    scale = _step(pipeline, "MultiScaleFlipAug").get("img_scale", scale)
    if isinstance(scale, list) and scale and isinstance(scale[0], list):
        scale = scale[0]  # several: test-time augmentation; the first is the plain one
    longest = numbers(scale, 2, "the scale of its test pipeline")
    require(resize.get("keep_ratio"), True, "keep_ratio of its test pipeline")
    step = _or_empty(model.get("data_preprocessor"))
    swap, pad = step.get("bgr_to_rgb", False), step.get("pad_size_divisor", 1)
    if "mean" not in step:
        step = _step(pipeline, "Normalize")
        swap, pad = step.get("to_rgb", True), _step(pipeline, "Pad").get("size_divisor")
    if not is_number(pad) or not isinstance(swap, bool):
        raise ValueError("it does not say how pictures are padded, or which channels come first")
    return {
        "min_size": int(min(longest)), "max_size": int(max(longest)), "pad_multiple": int(pad),
        "mean": numbers(step.get("mean"), 3, "mean"), "std": numbers(step.get("std"), 3, "std"),
        "channel_order": "rgb" if swap else "bgr",
    }  # fmt: skip


def _test_pipeline(config: dict[str, Any]) -> list[Any]:
    loader = _or_empty(_or_empty(config.get("test_dataloader")).get("dataset"))
    test = _or_empty(_or_empty(config.get("data")).get("test"))
    for pipeline in (loader.get("pipeline"), test.get("pipeline"), config.get("test_pipeline")):
        if isinstance(pipeline, list):
            return pipeline
    raise ValueError("it has no test pipeline, which says sizes, mean and std")


def _steps(pipeline: Any) -> Iterator[dict[str, Any]]:
    """Every step, those inside `MultiScaleFlipAug` too."""
    for step in pipeline if isinstance(pipeline, list) else []:
        if isinstance(step, dict):
            yield step
            yield from _steps(step.get("transforms"))


def _step(pipeline: list[Any], *kinds: str) -> dict[str, Any]:
    steps = islice(_steps(pipeline), _MOST_STEPS)
    return next((s for s in steps if str(s.get("type")).rpartition(".")[2] in kinds), {})


def _style(backbone: dict[str, Any]) -> str:
    style = backbone.get("style", "pytorch")  # mmdet/models/backbones/resnet.py: its default
    if style not in ("pytorch", "caffe"):
        raise ValueError(f"model.backbone.style = {short(style)}, expected pytorch or caffe")
    for name in ("dcn", "plugins", "deep_stem", "avg_down"):
        if backbone.get(name) not in (None, False):
            raise ValueError(f"model.backbone.{name} is not supported")
    return str(style)


def _pooling(model: dict[str, Any]) -> dict[str, Any]:
    """RoIAlign; 1.x wrote `sample_num` and shifted nothing."""
    heads = _or_empty(model.get("roi_head")) or model
    found = []
    for name in ("bbox_roi_extractor", "mask_roi_extractor"):
        extractor = _table(heads.get(name), name)
        layer = _table(extractor.get("roi_layer"), f"{name}.roi_layer")
        require(str(layer.get("type")).rpartition(".")[2], "RoIAlign", f"{name}.roi_layer.type")
        require(extractor.get("featmap_strides"), [4, 8, 16, 32], f"{name}.featmap_strides")
        legacy = "sample_num" in layer
        ratio = layer.get("sample_num", layer.get("sampling_ratio", 0))
        if not is_number(ratio):
            raise ValueError(f"{name}.roi_layer has no sampling ratio")
        found.append((int(ratio), bool(layer.get("aligned", not legacy))))
    if found[0] != found[1]:
        raise ValueError("box and mask head pool differently, which is not supported")
    return {"roi_sampling_ratio": found[0][0], "roi_aligned": found[0][1]}


def _anchors(rpn: dict[str, Any]) -> tuple[Anchors, float]:
    """One size per level; 1.x had the settings in the head itself."""
    table = _or_empty(rpn.get("anchor_generator")) or {
        "scales": rpn.get("anchor_scales"), "ratios": rpn.get("anchor_ratios"),
        "strides": rpn.get("anchor_strides"),
    }  # fmt: skip
    scales, ratios, strides = (table.get(name) for name in ("scales", "ratios", "strides"))
    if not isinstance(scales, list) or not isinstance(ratios, list) or not scales or not ratios:
        raise ValueError("rpn_head has no scales and ratios of anchors")
    require(strides, [4, 8, 16, 32, 64], "strides of the anchors")
    sides = numbers(scales, len(scales), "scales of the anchors")
    if any((side * 4) % 1 for side in sides):
        raise ValueError(f"anchor scales {sides} give no whole pixels, which is not supported")
    sizes = tuple(tuple(int(side * stride) for side in sides) for stride in (4, 8, 16, 32, 64))
    offset = table.get("center_offset", 0.0)
    kind = str(table.get("type", "AnchorGenerator")).rpartition(".")[2]
    require(kind, "AnchorGenerator", "rpn_head.anchor_generator.type")
    return Anchors(sizes, tuple(numbers(ratios, len(ratios), "ratios"))), number(
        offset, "center_offset"
    )


def _testing(config: dict[str, Any], model: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Thresholds of inference: 2.5 and later keep them in the model, before they stood beside it."""
    settings = _or_empty(model.get("test_cfg")) or _or_empty(config.get("test_cfg"))
    rcnn, rpn = _table(settings.get("rcnn"), "test_cfg.rcnn"), _or_empty(settings.get("rpn"))
    nms = _table(rcnn.get("nms"), "test_cfg.rcnn.nms")
    require(nms.get("type", "nms"), "nms", "test_cfg.rcnn.nms.type")
    require(rcnn.get("mask_thr_binary", 0.5), 0.5, "test_cfg.rcnn.mask_thr_binary")
    kept = rpn.get("max_per_img", rpn.get("max_num", rpn.get("nms_post", 1000)))
    overlap = _or_empty(rpn.get("nms")).get("iou_threshold", rpn.get("nms_thr", 0.7))
    usual = {
        "nms_pre": (rpn.get("nms_pre", 1000), 1000),
        "max_per_img": (kept, 1000),
        "nms": (overlap, 0.7),
    }
    notes = [
        f"its RPN was tested with {name} {short(found)}, here with {ours}"
        for name, (found, ours) in usual.items()
        if found != ours
    ]
    return {
        "nms_iou": number(nms.get("iou_threshold", nms.get("iou_thr", 0.5)), "nms.iou_threshold"),
        "max_detections": int(number(rcnn.get("max_per_img", 100), "max_per_img")),
    }, notes  # fmt: skip


def _require_coders(model: dict[str, Any]) -> None:
    """Boxes must be coded as the network decodes them, and classes by softmax."""
    rpn = _or_empty(model.get("rpn_head"))
    box = _or_empty((_or_empty(model.get("roi_head")) or model).get("bbox_head"))
    for head, expected, name in ((rpn, _RPN_STDS, "rpn_head"), (box, _STDS, "bbox_head")):
        coder = _or_empty(head.get("bbox_coder")) or head
        require(coder.get("target_stds", expected), expected, f"{name}: target_stds")
        require(coder.get("target_means", [0.0] * 4), [0.0] * 4, f"{name}: target_means")
    loss = _or_empty(box.get("loss_cls"))
    require(loss.get("use_sigmoid", False), False, "bbox_head.loss_cls.use_sigmoid")
    require(
        str(loss.get("type", "CrossEntropyLoss")).rpartition(".")[2],
        "CrossEntropyLoss",
        "bbox_head.loss_cls.type",
    )


def _table(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is not in it, or only running it would tell")
    return value


def _or_empty(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
