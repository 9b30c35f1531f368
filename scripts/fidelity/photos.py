"""Photos through torchvision's own Mask R-CNN and through our network, with the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.models import WeightsEnum
from torchvision.models import detection as theirs

from fidelity.matching import match_detections, worst_mask
from fidelity.recorded import Config
from fidelity.stages import Difference, StagedPredictor
from segcli.images import read_image
from segcli.instances import Instances
from segcli.masks import Masks
from segcli.models import Detections, MaskRCNN, Postprocess
from segcli.models.paste import paste_runs

_BUILDERS: dict[str, tuple[Any, Any]] = {
    "torchvision-v1": (
        theirs.maskrcnn_resnet50_fpn, theirs.MaskRCNN_ResNet50_FPN_Weights.COCO_V1,
    ),
    "torchvision-v2": (
        theirs.maskrcnn_resnet50_fpn_v2, theirs.MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1,
    ),
}  # fmt: skip


def stock_network(config: Config, weights: dict[str, Tensor]) -> Any:
    """The stock network as torchvision's builder makes it for published weights; only the download is replaced."""
    build, published = _BUILDERS[config.preset]
    with mock.patch.object(WeightsEnum, "get_state_dict", return_value=weights):
        return build(weights=published).eval()


def compare_photo(
    predictor: StagedPredictor, network: MaskRCNN, stock: Any, path: Path, first_label: int
) -> list[Difference]:
    """Detections of one photo: those of `segcli predict`, those of the network itself, and torchvision's.

    Args:
        predictor: has the network's weights, its norms folded.
        network: with torchvision's RoIAlign, so that every operation is the one that torchvision runs.
        stock: torchvision's own.
        path: a photo without EXIF rotation.
        first_label: torchvision's number of class 0.
    """
    outcome = predictor.run(read_image(path))
    with torch.inference_mode():
        (expected,) = stock([_as_torchvision_reads(path)])
        (own,) = network(outcome.batch, [outcome.prepared.size])
    itself = predictor.finish(own, outcome)
    return [
        Difference("detections", float(len(expected["labels"])), float("inf"), "found"),
        *_differences("predict", outcome.instances, outcome.detections, expected, first_label),
        *_differences("network", itself, own, expected, first_label),
    ]


def _differences(
    path: str, ours: Instances, found: Detections, expected: dict[str, Tensor], first_label: int
) -> list[Difference]:
    assert ours.scores is not None
    assert ours.masks is not None
    boxes, scores, labels = (expected[k].numpy() for k in ("boxes", "scores", "labels"))
    matched = match_detections(
        (ours.boxes, ours.scores, ours.labels.astype(np.int64) + first_label),
        (boxes, scores, labels),
    )
    dense = (expected["masks"][:, 0] > 0.5).numpy()
    truth = Masks.from_coco([_coco(mask) for mask in dense], ours.image_size)
    worst, bad, divided = 0, 0, 0
    for i, j in matched.pairs:
        pixels, overlap = worst_mask(ours.masks, truth, (i, j))
        if pixels > 10 and overlap < 0.999:
            # torchvision cuts boxes to whole pixels: two that differ by 1e-4 px may lie on both sides of one
            runs = paste_runs(
                found.masks[i : i + 1],
                torch.from_numpy(boxes[j : j + 1]),
                ours.image_size,
                Postprocess(),
            )
            moved = Masks(runs.counts.numpy(), runs.offsets.numpy(), ours.image_size)
            pixels, overlap = worst_mask(moved, truth, (0, j))
            at_edge = pixels <= 10 or overlap >= 0.999
            divided, bad = divided + at_edge, bad + (not at_edge)
        worst = max(worst, pixels)
    return [
        Difference(f"{path}: detections unmatched", float(matched.unmatched), 0, "of all"),
        Difference(f"{path}: boxes", matched.boxes, 1e-2, "px"),
        Difference(f"{path}: scores", matched.scores, 2e-4, "absolute"),
        Difference(f"{path}: masks out of tolerance", float(bad), 0, "of all"),
        Difference(
            f"{path}: masks that a whole pixel divides", float(divided), float("inf"), "of all"
        ),
        Difference(f"{path}: other masks", float(worst), float("inf"), "px"),
    ]


def _as_torchvision_reads(path: Path) -> Tensor:
    """float32 (3, H, W) in 0..1, by Pillow alone; these photos have no EXIF rotation."""
    pixels = np.asarray(Image.open(path).convert("RGB"))
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy()).float() / 255


def _coco(mask: NDArray[np.bool_]) -> dict[str, Any]:
    from pycocotools import mask as coco

    encoded: dict[str, Any] = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}
