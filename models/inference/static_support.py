"""Which networks the detector of fixed shapes gives the right answers for."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from typing import Any

from segcli.models.conventions import Conventions
from segcli.models.spec import ModelSpec

# Obeyed whatever they say. Backbone, pyramid and the heads' layers are the plain detector's own, so all that is settled
# there (`bn_…`, `stride_in_1x1`) is; the rest are arguments of RoIAlign, NMS and pasting.
_OBEYED = {
    "preprocess": {"min_size", "max_size", "mean", "std", "pad_multiple"},
    "numerics": {
        "bn_eps", "bn_form", "stride_in_1x1", "roi_aligned", "roi_sampling_ratio", "level_rule",
        "rpn_kept_train",
    },
    "postprocess": {"nms_iou", "max_detections", "mask_paste", "mask_inclusive"},
    "spec": {"architecture", "classes", "anchors", "conventions"},
    "anchors": {"sizes", "aspect_ratios"},
}  # fmt: skip
# Obeyed beside the default. torchvision's `by_size` shifts boxes to keep classes apart where they are few, which
# rounds their corners; here they are kept apart exactly, which is what it stands for.
_EQUAL = {("numerics", "nms_mode"): ("by_size",)}


def why_not_static(spec: ModelSpec) -> str | None:
    """Why a network cannot run as `segcli.models.inference.static.StaticDetector`; None where it can.

    A field that is not known here, one added later among them, has to have its default, which by the records' own rule
    is what this program did before there was the field.
    """
    conventions: Conventions = spec.conventions
    records: dict[str, Any] = {
        "spec": spec,
        "anchors": spec.anchors,
        "preprocess": conventions.preprocess,
        "numerics": conventions.numerics,
        "postprocess": conventions.postprocess,
    }
    for name, record in records.items():
        for field in fields(record):
            value = getattr(record, field.name)
            if field.name in _OBEYED[name] or _is_default(field, value):
                continue
            if value not in _EQUAL.get((name, field.name), ()):
                return f"its {name} have {field.name} = {value!r}"
    return None


def _is_default(field: Field[Any], value: object) -> bool:
    if field.default_factory is not MISSING:
        return bool(value == field.default_factory())
    return field.default is not MISSING and bool(value == field.default)
