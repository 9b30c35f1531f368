"""What `segcli bench predict --quick` runs on: two made-up pictures and weights of no use that find something."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from segcli.zoo import COCO_91, new_model, save_model

QUICK_SIZES = (128, 256)  # --min-size and --max-size
_PICTURES = ((96, 128), (120, 90))  # height, width
# Weights without a mean and small residuals, so that random layers keep places apart and do not blow noise up; boxes
# and classes that differ enough to be told apart in bf16, and none so sure that its score is 1.
_FACTORS = {"bn3.weight": 0.25, "rpn.head.cls_logits.weight": 30.0, "cls_score.weight": 250.0}


def quick_pictures(folder: Path) -> Path:
    """Write two small pictures of seeded squares; the folder."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number, (height, width) in enumerate(_PICTURES):
        pixels = np.full((height, width, 3), 90, np.uint8)
        for _ in range(6):
            y, x = random.integers(0, height - 20), random.integers(0, width - 20)
            side = random.integers(12, 48)
            pixels[y : y + side, x : x + side] = random.integers(0, 256, 3)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def quick_model(path: Path) -> str:
    """Write R50-FPN with 90 classes and seeded random weights; the file's name, for `--model`.

    It finds at most 10 objects a picture: the mask head of 100 would be most of the work on so small a picture.
    """
    model = new_model("mask-rcnn-r50-fpn", COCO_91, seed=0)
    own = model.spec.conventions
    few = replace(own, postprocess=replace(own.postprocess, max_detections=10))
    model = replace(model, spec=replace(model.spec, conventions=few))
    for name, tensor in model.state.items():
        if tensor.ndim > 1:
            tensor.sub_(tensor.mean(dim=tuple(range(1, tensor.ndim)), keepdim=True))
        tensor.mul_(next((factor for end, factor in _FACTORS.items() if name.endswith(end)), 1.0))
    save_model(path, model)
    return str(path)
