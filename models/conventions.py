"""Every numeric choice that weights need and that their state dict does not show, as data.

Three small records: what happens before the network, inside it, and after it. A field stands here once the code
obeys it; records of other families' weights add fields and raise `SCHEMA`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

SCHEMA = 1

MaskPaste = Literal["truncated_box", "pixel_centres"]
LevelRule = Literal["torchvision", "detectron2", "mmdetection"]


@dataclass(frozen=True)
class Preprocess:
    """From an upright RGB picture to the network's input.

    Attributes:
        min_size: the shorter side is scaled to this many pixels …
        max_size: … unless the longer one would exceed this.
        mean: per channel (R, G, B), on the 0..1 scale.
        std: per channel, likewise.
        pad_multiple: batches are zero-padded at the right and bottom to a multiple of this.
    """

    min_size: int = 800
    max_size: int = 1333
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    pad_multiple: int = 32


@dataclass(frozen=True)
class Numerics:
    """Inside the network.

    Attributes:
        bn_eps: of every batch norm. 0 for torchvision's v1 COCO weights and all that is fine-tuned from them
            (torchvision/models/detection/mask_rcnn.py, `overwrite_eps`); it is not in the state dict.
        roi_aligned: RoIAlign shifts by half a pixel, so that pixel centres lie at .5.
        roi_sampling_ratio: samples per bin and axis; 0 = adaptive.
        level_rule: which family's rounding assigns a RoI to its pyramid level.
    """

    bn_eps: float = 1e-5
    roi_aligned: bool = False
    roi_sampling_ratio: int = 2
    level_rule: LevelRule = "torchvision"


@dataclass(frozen=True)
class Postprocess:
    """After the network.

    Attributes:
        nms_iou: of two boxes of one class that overlap by more than this, the weaker is dropped.
        max_detections: most objects per picture.
        mask_paste: `truncated_box` (torchvision: box cut to whole pixels, mask resized into it) or `pixel_centres`
            (detectron2, mmdetection: the mask sampled at the centres of the picture's pixels).
        mask_inclusive: a probability of exactly 0.5 belongs to the mask.
    """

    nms_iou: float = 0.5
    max_detections: int = 100
    mask_paste: MaskPaste = "truncated_box"
    mask_inclusive: bool = False


@dataclass(frozen=True)
class Conventions:
    """The three records, stored in every checkpoint of ours."""

    preprocess: Preprocess = field(default_factory=Preprocess)
    numerics: Numerics = field(default_factory=Numerics)
    postprocess: Postprocess = field(default_factory=Postprocess)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with the schema's version."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_dict(cls, table: dict[str, Any]) -> Conventions:
        """Read what `to_dict` wrote.

        Raises:
            ValueError: another schema than this program's, or a field is unknown.
        """
        if table.get("schema") != SCHEMA:
            raise ValueError(
                f"conventions of schema {table.get('schema')!r}, this program reads {SCHEMA}"
            )
        try:
            before = {**table["preprocess"]}
            before["mean"], before["std"] = tuple(before["mean"]), tuple(before["std"])
            return cls(
                Preprocess(**before),
                Numerics(**table["numerics"]),
                Postprocess(**table["postprocess"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"damaged conventions record ({error})") from error


TORCHVISION_V1_COCO = Conventions(numerics=Numerics(bn_eps=0.0))
OWN = Conventions(
    numerics=Numerics(roi_aligned=True),
    postprocess=Postprocess(mask_paste="pixel_centres", mask_inclusive=True),
)
