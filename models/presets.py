"""The families' conventions by name, and where each known difference between the families is kept.

Sources: torchvision 0.28 `models/detection`, detectron2 @02b5c4e2, mmdetection 3.2.0 with mmcv 2.2.0.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from segcli.models.class_layout import BACKGROUND_LAST
from segcli.models.conventions import (
    OWN,
    TORCHVISION_V1_COCO,
    Conventions,
    Numerics,
    Postprocess,
    Preprocess,
)

_RGB_MEAN, _RGB_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_BGR_MEAN, _BGR_STD = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)
_ONE = (1.0, 1.0, 1.0)

TORCHVISION_V1 = TORCHVISION_V1_COCO
TORCHVISION_V2 = Conventions(numerics=Numerics(bn_form="batch_norm", nms_mode="by_size"))

DETECTRON2_R50 = Conventions(
    Preprocess(
        size_rounding="half_up_in_steps", resize="pil_bilinear", normalize_first=False,
        channel_order="bgr", divisor=1.0, mean=_BGR_MEAN, std=_ONE,
    ),
    Numerics(
        stride_in_1x1=True, bn_form="batch_norm", anchors_rounded=False, anchor_stride="fixed",
        rpn_rank="logit", rpn_kept_train=1000, rpn_min_size=0.0, rpn_min_inclusive=False,
        drop_non_finite=True, nms_mode="by_size", roi_aligned=True, roi_sampling_ratio=0,
        level_rule="detectron2", class_layout=BACKGROUND_LAST,
    ),
    Postprocess(
        box_min_size=0.0, clip_rescaled=True, drop_empty=True, mask_paste="pixel_centres",
        mask_inclusive=True,
    ),
)  # fmt: skip
DETECTRON2_X101 = replace(
    DETECTRON2_R50,
    preprocess=replace(DETECTRON2_R50.preprocess, std=_BGR_STD),
    numerics=replace(DETECTRON2_R50.numerics, stride_in_1x1=False),
)

MMDETECTION_PYTORCH = Conventions(
    Preprocess(
        size_rounding="half_up", resize="cv2_linear", normalize_first=False, divisor=1.0,
        mean=_RGB_MEAN, std=_RGB_STD,
    ),
    Numerics(
        bn_form="batch_norm", anchors_rounded=False, anchor_stride="fixed", rpn_rank="sigmoid",
        rpn_kept_train=1000, rpn_min_size=0.0, rpn_min_inclusive=False, delta_clamp_low=True,
        delta_form="multiply_stds", box_centre="mean_of_corners", nms_mode="offset",
        roi_aligned=True, roi_sampling_ratio=0, level_rule="mmdetection",
        class_layout=BACKGROUND_LAST,
    ),
    Postprocess(
        box_min_size=0.0, box_rescale="divide", mask_paste="pixel_centres", mask_inclusive=True
    ),
)  # fmt: skip
MMDETECTION_CAFFE = replace(
    MMDETECTION_PYTORCH,
    preprocess=replace(
        MMDETECTION_PYTORCH.preprocess, channel_order="bgr", mean=_BGR_MEAN, std=_ONE
    ),
    numerics=replace(MMDETECTION_PYTORCH.numerics, stride_in_1x1=True),
)
MMDETECTION_X101_32X8D = replace(
    MMDETECTION_PYTORCH,
    preprocess=replace(
        MMDETECTION_PYTORCH.preprocess, channel_order="bgr", mean=_BGR_MEAN, std=_BGR_STD
    ),
)

PRESETS: dict[str, Conventions] = {
    "torchvision-v1": TORCHVISION_V1,
    "torchvision-v2": TORCHVISION_V2,
    "detectron2-r50": DETECTRON2_R50,  # and R-101: MSRA's weights
    "detectron2-x101": DETECTRON2_X101,
    "mmdetection-pytorch": MMDETECTION_PYTORCH,
    "mmdetection-caffe": MMDETECTION_CAFFE,
    "mmdetection-x101-32x8d": MMDETECTION_X101_32X8D,
    "segcli": OWN,
}


def preset(name: str) -> Conventions:
    """Conventions by name.

    Raises:
        ValueError: no such name.
    """
    if name not in PRESETS:
        raise ValueError(f"no conventions named {name!r}; known: {', '.join(PRESETS)}")
    return PRESETS[name]


def name_of(conventions: Conventions) -> str | None:
    """The preset that has exactly these values; None where none has."""
    return next((name for name, known in PRESETS.items() if known == conventions), None)


def from_table(table: dict[str, Any]) -> Conventions:
    """Conventions from a TOML or JSON file: a whole record as `Conventions.to_dict` gives it, or changes to a preset.

    Changes name the preset and only the fields that differ: `{"base": "detectron2-r50", "preprocess": {"min_size":
    640}}`.

    Raises:
        ValueError: no such preset, schema, field or value.
    """
    if "base" not in table:
        return Conventions.from_dict(table)
    changes = {key: value for key, value in table.items() if key != "base"}
    return preset(str(table["base"])).changed(changes)


ROWS: dict[int, str] = {
    1: "equal: pictures are upright in every family, by this program's own rule; decoders agree",
    2: "preprocess.channel_order",
    3: "preprocess.divisor preprocess.mean preprocess.std",
    4: "preprocess.normalize_first",
    5: "preprocess.resize",
    6: "preprocess.size_rounding",
    7: "preprocess.min_size preprocess.max_size",
    8: "preprocess.pad_multiple",
    9: "numerics.stride_in_1x1",
    10: "numerics.bn_eps numerics.bn_form",
    11: "equal: inputs are padded to a multiple of the last stride, so twice a level is the next one's size",
    12: "numerics.anchor_stride",
    13: "numerics.anchors_rounded",
    14: "numerics.anchor_offset",
    15: "numerics.rpn_rank",
    16: "numerics.rpn_kept_train",
    17: "numerics.delta_clamp_low",
    18: "numerics.rpn_min_size numerics.rpn_min_inclusive numerics.drop_non_finite",
    19: "numerics.nms_mode",
    20: "reason: all divide on a CPU; only mmcv's GPU kernel multiplies, and our answer is the CPU's on any device",
    21: "equal: 0.7",
    22: "numerics.level_rule",
    23: "equal: strides 4 … 32 are what torchvision infers from a picture padded to 32; it keeps the first's (a bug)",
    24: "numerics.roi_aligned numerics.roi_sampling_ratio",
    25: "numerics.roi_aligned",
    26: "reason: boxes are float32 in any precision, where detectron2 and mmdetection would round them to 16 bits",
    27: "numerics.delta_form",
    28: "numerics.box_centre",
    29: "postprocess.nms_iou postprocess.max_detections",
    30: "postprocess.box_min_size numerics.drop_non_finite",
    31: "postprocess.box_rescale postprocess.clip_rescaled postprocess.drop_empty",
    32: "equal: boxes of the resized picture, 14 × 14 samples, 28 × 28 masks",
    33: "equal: the sigmoid of the chosen class either way",
    34: "postprocess.mask_paste",
    35: "postprocess.mask_inclusive",
    36: "reason: the compiled operators agree to the bit; only torchvision's Python fallback, never used, rounds apart",
    37: "numerics.class_layout",
    38: "equal: x, y, width, height without + 1; run lengths of the thresholded mask",
}
"""The 38 differences of checkpoint conventions: fields that keep one, `equal`, or the `reason` why none is kept."""
