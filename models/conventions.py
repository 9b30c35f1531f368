"""Every numeric choice that weights need and that their state dict does not show, as data.

Three small records: what happens before the network, inside it, and after it. Their defaults are what this program did
before it ran other families' weights (schema 1). The families' own choices are in `segcli.models.presets`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from segcli.models.class_layout import BACKGROUND_FIRST, ClassLayout

SCHEMA = 2

ChannelOrder = Literal["rgb", "bgr"]
Resize = Literal["torch_bilinear", "pil_bilinear", "cv2_linear"]
SizeRounding = Literal["floor", "half_up", "half_up_in_steps"]
NormForm = Literal["scale_bias", "batch_norm"]
AnchorStride = Literal["inferred", "fixed"]
RpnRank = Literal["logit_then_sigmoid", "logit", "sigmoid"]
DeltaForm = Literal["divide_weights", "multiply_stds"]
BoxCentre = Literal["corner_plus_half", "mean_of_corners"]
NmsMode = Literal["per_class", "by_size", "offset"]
MaskPaste = Literal["truncated_box", "pixel_centres"]
LevelRule = Literal["torchvision", "detectron2", "mmdetection"]
BoxRescale = Literal["multiply", "divide"]


@dataclass(frozen=True)
class Preprocess:
    """From an upright RGB picture to the network's input.

    Attributes:
        min_size: the shorter side is scaled to this many pixels …
        max_size: … unless the longer one would exceed this.
        size_rounding: `floor` (torchvision), `half_up`: int(side · scale + 0.5) with one scale (mmdetection), or
            `half_up_in_steps`: the same, but scaled to `min_size` first and then down to `max_size` (detectron2).
        resize: `torch_bilinear` in float32 without antialiasing; on uint8, `pil_bilinear` (antialiased when it
            shrinks) or `cv2_linear` (fixed-point, not antialiased).
        normalize_first: mean and std are applied before the picture is resized; only with `torch_bilinear`.
        channel_order: of the network's input, and of `mean` and `std`.
        divisor: pixels 0..255 are divided by this before mean and std.
        mean: per channel, after `divisor`.
        std: per channel, likewise.
        pad_multiple: batches are zero-padded at the right and bottom to a multiple of this.
    """

    min_size: int = 800
    max_size: int = 1333
    size_rounding: SizeRounding = "floor"
    resize: Resize = "torch_bilinear"
    normalize_first: bool = True
    channel_order: ChannelOrder = "rgb"
    divisor: float = 255.0
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    pad_multiple: int = 32

    def __post_init__(self) -> None:
        if self.normalize_first and self.resize != "torch_bilinear":
            raise ValueError(
                f"preprocess: {self.resize} resizes uint8, so normalize_first must be false"
            )


@dataclass(frozen=True)
class Numerics:
    """Inside the network.

    Attributes:
        stride_in_1x1: a bottleneck halves resolution in its first 1×1 convolution (MSRA's and Caffe's weights), not
            in its 3×3.
        bn_eps: of every batch norm. 0 for torchvision's v1 COCO weights and all that is fine-tuned from them
            (torchvision/models/detection/mask_rcnn.py, `overwrite_eps`); it is not in the state dict.
        bn_form: how a fixed batch norm is written: x · scale + bias, or torch's own operator; last bits differ.
        anchors_rounded: corners of the anchors are rounded to whole pixels.
        anchor_stride: between anchors: `inferred` = padded size // grid (P6 of 800 pixels: 61), or `fixed` 4 … 64.
        anchor_offset: of the first anchor's centre, in strides.
        rpn_rank: by what the best anchors of a level are chosen, and by what NMS orders them:
            logit and sigmoid, logit and logit, sigmoid and sigmoid. Saturated sigmoids tie.
        rpn_kept_train: most proposals of a picture in training; the architecture may ask for fewer.
        rpn_min_size: pixels; proposals that are smaller on a side are dropped …
        rpn_min_inclusive: … one of exactly this size is kept.
        drop_non_finite: proposals and detections with a coordinate or score that is infinite or NaN are dropped
            before they are clipped.
        delta_clamp_low: dw and dh are limited to -log(1000 / 16) too, not only to +log(1000 / 16).
        delta_form: box deltas of the heads are divided by (10, 10, 5, 5), or multiplied by (0.1, 0.1, 0.2, 0.2).
        box_centre: of a box that is moved: x1 + w / 2, or (x1 + x2) / 2.
        nms_mode: how boxes of different classes (levels, in the RPN) are kept apart in NMS. `per_class` is exact;
            `offset` shifts each class's boxes beyond the others', which rounds them, unless there are 10,000 or more
            (mmcv); `by_size` does that up to 4000 coordinates on a CPU and 100,000 elsewhere (torchvision).
        roi_aligned: RoIAlign shifts by half a pixel, so that pixel centres lie at .5.
        roi_sampling_ratio: samples per bin and axis; 0 = adaptive.
        level_rule: which family's rounding assigns a RoI to its pyramid level.
        class_layout: which rows of the heads belong to which class.
    """

    stride_in_1x1: bool = False
    bn_eps: float = 1e-5
    bn_form: NormForm = "scale_bias"
    anchors_rounded: bool = True
    anchor_stride: AnchorStride = "inferred"
    anchor_offset: float = 0.0
    rpn_rank: RpnRank = "logit_then_sigmoid"
    rpn_kept_train: int = 2000
    rpn_min_size: float = 1e-3
    rpn_min_inclusive: bool = True
    drop_non_finite: bool = False
    delta_clamp_low: bool = False
    delta_form: DeltaForm = "divide_weights"
    box_centre: BoxCentre = "corner_plus_half"
    nms_mode: NmsMode = "per_class"
    roi_aligned: bool = False
    roi_sampling_ratio: int = 2
    level_rule: LevelRule = "torchvision"
    class_layout: ClassLayout = BACKGROUND_FIRST


@dataclass(frozen=True)
class Postprocess:
    """After the network.

    Attributes:
        box_min_size: pixels of the network's input; detections smaller than this on a side are dropped before NMS.
            0 drops none.
        nms_iou: of two boxes of one class that overlap by more than this, the weaker is dropped.
        max_detections: most objects per picture.
        box_rescale: back to the original picture: `multiply` by original / resized, or `divide` by its inverse.
        clip_rescaled: boxes are then clipped to the original picture …
        drop_empty: … and those without extent dropped.
        mask_paste: `truncated_box` (torchvision: box cut to whole pixels, mask resized into it) or `pixel_centres`
            (detectron2, mmdetection: the mask sampled at the centres of the picture's pixels).
        mask_inclusive: a probability of exactly 0.5 belongs to the mask.
    """

    box_min_size: float = 1e-2
    nms_iou: float = 0.5
    max_detections: int = 100
    box_rescale: BoxRescale = "multiply"
    clip_rescaled: bool = False
    drop_empty: bool = False
    mask_paste: MaskPaste = "truncated_box"
    mask_inclusive: bool = False


@dataclass(frozen=True)
class Conventions:
    """The three records, stored in every checkpoint of ours."""

    preprocess: Preprocess = field(default_factory=Preprocess)
    numerics: Numerics = field(default_factory=Numerics)
    postprocess: Postprocess = field(default_factory=Postprocess)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON and TOML, with the schema's version."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_dict(cls, table: dict[str, Any]) -> Conventions:
        """Read what `to_dict` wrote, now or in schema 1, whose records lack what was added since.

        Raises:
            ValueError: another schema than this program's, a field is missing, unknown or of no such value.
        """
        schema = table.get("schema")
        if schema not in (1, SCHEMA):
            raise ValueError(f"conventions of schema {schema!r}, this program reads 1 and {SCHEMA}")
        extra = set(table) - {"schema", "preprocess", "numerics", "postprocess"}
        if extra:
            raise ValueError(f"damaged conventions record (unknown: {', '.join(sorted(extra))})")
        for default in (Preprocess(), Numerics(), Postprocess()):
            name = type(default).__name__.lower()
            values = table.get(name)
            if not isinstance(values, dict):
                raise ValueError(f"damaged conventions record ({name} is missing)")
            missing = {f.name for f in fields(default)} - set(values)
            if schema == SCHEMA and missing:
                raise ValueError(f"damaged conventions record ({name} lacks {sorted(missing)[0]})")
        return cls().changed(table)

    def changed(self, table: dict[str, Any]) -> Conventions:
        """These, with the fields that `table` names (some of `preprocess`, `numerics`, `postprocess`) changed.

        Raises:
            ValueError: an unknown field, or no such value.
        """
        extra = set(table) - {"schema", "preprocess", "numerics", "postprocess"}
        if extra:
            raise ValueError(f"conventions have no {sorted(extra)[0]!r}")
        return Conventions(
            _with(self.preprocess, table.get("preprocess", {}), "preprocess"),
            _with(self.numerics, table.get("numerics", {}), "numerics"),
            _with(self.postprocess, table.get("postprocess", {}), "postprocess"),
        )


Record = TypeVar("Record", Preprocess, Numerics, Postprocess, ClassLayout)


def _with(record: Record, values: Any, name: str) -> Record:
    """The record with plain values put in, each checked against its field's type."""
    if not isinstance(values, dict):
        raise ValueError(f"{name}: found {values!r}, expected a table")
    types = get_type_hints(type(record))
    known = {f.name: getattr(record, f.name) for f in fields(record)}
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"{name} has no field {key!r}; it has {', '.join(known)}")
        if isinstance(known[key], ClassLayout):
            known[key] = _with(known[key], value, f"{name}.{key}")
        else:
            known[key] = _value(value, types[key], f"{name}.{key}")
    return type(record)(**known)


def _value(value: Any, kind: Any, name: str) -> Any:
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ValueError(f"{name}: {value!r}, expected {' or '.join(map(str, get_args(kind)))}")
        return value
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple) or len(value) != len(get_args(kind)):
            raise ValueError(f"{name}: {value!r}, expected {len(get_args(kind))} numbers")
        return tuple(_value(v, float, name) for v in value)
    accepted = (int, float) if kind is float else (kind,)
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{name}: {value!r}, expected {kind.__name__}")
    return float(value) if kind is float else value


TORCHVISION_V1_COCO = Conventions(numerics=Numerics(bn_eps=0.0, nms_mode="by_size"))
OWN = Conventions(
    numerics=Numerics(roi_aligned=True),
    postprocess=Postprocess(mask_paste="pixel_centres", mask_inclusive=True),
)
