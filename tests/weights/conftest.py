"""State dicts of every layout, small but complete."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from segcli.models import Anchors, MaskRCNN, ModelSpec
from segcli.models.presets import preset

State = dict[str, Tensor]
# tensors whose shapes tell the architecture and the classes; the others may be of any size
_TELLING = ("layer1.0.conv2.weight", "cls_score", "bbox_pred", "mask_fcn_logits", "cls_logits")


@pytest.fixture(scope="session")
def layouts(repository: Path) -> ModuleType:
    """`scripts/weight_layouts.py`: our names as other families write them."""
    path = repository / "scripts" / "weight_layouts.py"
    spec = importlib.util.spec_from_file_location("weight_layouts", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _small(name: str, tensor: Tensor, random: torch.Generator) -> Tensor:
    telling = any(part in name for part in _TELLING)
    shape = [side if telling and k < 2 else min(side, 3) for k, side in enumerate(tensor.shape)]
    if any(part in name for part in _TELLING[1:]):
        shape[1:] = [min(side, 3) for side in shape[1:]]
    return torch.rand(shape, generator=random) if math.prod(shape) else torch.zeros(shape)


@pytest.fixture(scope="session")
def small_state() -> Callable[..., State]:
    """`small_state(architecture, preset, classes)`: all names of a network, most tensors cut small."""
    made: dict[tuple[str, str, int], State] = {}

    def make(
        architecture: str = "mask-rcnn-r50-fpn", name: str = "torchvision-v1", classes: int = 90
    ) -> State:
        key = (architecture, name, classes)
        if key not in made:
            random = torch.Generator().manual_seed(1)
            with torch.device("meta"):
                network = MaskRCNN(ModelSpec(architecture, classes, Anchors(), preset(name)))
            state = {n: t for n, t in network.state_dict().items() if "num_batches" not in n}
            made[key] = {n: _small(n, t, random) for n, t in state.items()}
        return dict(made[key])

    return make
