"""Mask R-CNN at inference: the network of `segcli.models.mask_rcnn` with its weights laid out for speed."""

from segcli.models.inference.detector import Detector, MakeEngine, TrunkEngine
from segcli.models.inference.trunk import Trunk, TrunkOutput

__all__ = ["Detector", "MakeEngine", "Trunk", "TrunkEngine", "TrunkOutput"]
