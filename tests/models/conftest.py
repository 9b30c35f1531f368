"""Networks with seeded random weights that find something."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.models.detection import MaskRCNN as StockMaskRCNN
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.resnet import resnet50
from torchvision.ops.misc import FrozenBatchNorm2d


def stock_r50() -> StockMaskRCNN:
    """Torchvision's own Mask R-CNN R50-FPN as its builder makes it for the v1 COCO weights, weights random."""
    body = resnet50(weights=None, norm_layer=FrozenBatchNorm2d)
    stages = {f"layer{k}": str(k - 1) for k in (1, 2, 3, 4)}
    model = StockMaskRCNN(BackboneWithFPN(body, stages, [256, 512, 1024, 2048], 256), 91)
    overwrite_eps(model, 0.0)
    return model.eval()


@pytest.fixture(scope="session")
def stock() -> StockMaskRCNN:
    """See `stock_r50`; variances are perturbed so that eps matters, and classes spread so that objects are found."""
    torch.manual_seed(0)
    model = stock_r50()
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2.0)
        if name == "roi_heads.box_predictor.cls_score.weight":
            tensor.mul_(40)
    return model


@pytest.fixture(scope="session")
def fixture_weights(shared: Callable[[str], Path]) -> Callable[[str], dict[str, Tensor]]:
    """Seeded weights of a fixture by its recipe, as a state dict."""

    def make(config: str) -> dict[str, Tensor]:
        import json

        folder = shared("fixtures")
        record = json.loads((folder / config / "state_dict.json").read_text())
        sys.path.insert(0, str(folder))
        try:
            import recipe
        finally:
            sys.path.remove(str(folder))
        shapes = {name: entry["shape"] for name, entry in record["tensors"].items()}
        arrays = recipe.make_state_dict(shapes, seed=0, config=config)
        assert recipe.digest(arrays) == record["digest"]
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    return make
