"""The network: tensors in, tensors out. Imports torch and torchvision, and nothing of the rest of segcli."""

from segcli.models.architectures import ARCHITECTURES, Architecture
from segcli.models.class_layout import ClassLayout
from segcli.models.conventions import Conventions, Numerics, Postprocess, Preprocess
from segcli.models.mask_rcnn import Detections, MaskRCNN
from segcli.models.presets import PRESETS
from segcli.models.spec import Anchors, ModelSpec

__all__ = [
    "ARCHITECTURES",
    "PRESETS",
    "Anchors",
    "Architecture",
    "ClassLayout",
    "Conventions",
    "Detections",
    "MaskRCNN",
    "ModelSpec",
    "Numerics",
    "Postprocess",
    "Preprocess",
]
