"""The peer: torchvision's own Mask R-CNN with the step of its reference loop, on the same pictures and weights.

Source: pytorch/vision references/detection (`engine.train_one_epoch`: losses, `.item()`, zero_grad, backward, step; SGD
of torch's default kind; `coco_utils.ConvertCocoPolysToMask`: full-size masks). The network around the weights is made
of torchvision's classes alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN as StockMaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.rpn import RPNHead

from segcli.annotations import Picture
from segcli.bench.train_inputs import TrainInputs
from segcli.bench.train_ours import (
    CHECK_KEY,
    LR,
    MOMENTUM,
    WEIGHT_DECAY,
    freeze,
    stages_of,
    wait,
)
from segcli.bench.trainers import TrainTask
from segcli.device import resolve
from segcli.images import read_image
from segcli.models import ARCHITECTURES, MaskRCNN
from segcli.models.training.sampling import BACKGROUND, FOREGROUND, IGNORED, draw, generators

Target = dict[str, Tensor]


class StockTraining:
    """Steps of torchvision.

    Attributes:
        resolved: what runs.

    Args:
        task: the job.
        inputs: pictures and network.
    """

    def __init__(self, task: TrainTask, inputs: TrainInputs) -> None:
        self.device = resolve(task.device, "fp32").device
        self.inputs, self.size = inputs, task.batch_size
        self.network = build_stock(inputs).to(self.device).train()
        if inputs.frozen:
            freeze(self.network)
        trained = [p for p in self.network.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(
            trained, lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
        )
        self.resolved: dict[str, Any] = {
            "precision": "fp32",
            "device": self.device.type,
            "threads": torch.get_num_threads(),
        }
        self.step_number = 0

    def losses(self) -> dict[str, float]:
        """Of the first batch, with the samples that `CHECK_KEY` draws; fixed weights."""
        images, targets = self._on_device(self._read(0))
        with torch.no_grad(), _keyed(self.network, len(images)):
            found = self.network(images, targets)
        return {name: float(loss) for name, loss in found.items()}

    def step(self) -> dict[str, float]:
        """One step; seconds by stage."""
        marks = [time.perf_counter()]
        batch = self._read(self.step_number)
        marks.append(time.perf_counter())
        images, targets = self._on_device(batch)
        losses = self.network(images, targets)
        total = sum(loss for loss in losses.values())
        assert isinstance(total, Tensor)
        total.item()
        marks.append(time.perf_counter())
        self.optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        wait(self.device)
        marks.append(time.perf_counter())
        self.optimizer.step()
        wait(self.device)
        marks.append(time.perf_counter())
        self.step_number += 1
        return stages_of(marks)

    def _read(self, step: int) -> list[tuple[Tensor, Target]]:
        return [_sample(picture) for picture in self.inputs.batch(step, self.size)]

    def _on_device(self, batch: list[tuple[Tensor, Target]]) -> tuple[list[Tensor], list[Target]]:
        images = [image.to(self.device) for image, _ in batch]
        return images, [{k: v.to(self.device) for k, v in target.items()} for _, target in batch]


def build_stock(inputs: TrainInputs) -> Any:
    """Torchvision's Mask R-CNN around the same backbone and heads, with its own RPN, poolers and losses."""
    spec, parts = inputs.spec, MaskRCNN(inputs.spec)
    row, sizes = ARCHITECTURES[spec.architecture], spec.conventions.preprocess
    anchors = AnchorGenerator(
        spec.anchors.sizes, (spec.anchors.aspect_ratios,) * len(spec.anchors.sizes)
    )
    heads = parts.roi_heads
    network: nn.Module = StockMaskRCNN(
        parts.backbone, None,
        min_size=sizes.min_size, max_size=sizes.max_size,
        image_mean=list(sizes.mean), image_std=list(sizes.std), size_divisible=sizes.pad_multiple,
        rpn_anchor_generator=anchors,
        rpn_head=RPNHead(
            row.fpn_channels, anchors.num_anchors_per_location()[0], len(parts.rpn.head.conv)
        ),
        rpn_pre_nms_top_n_train=row.proposals[0], rpn_post_nms_top_n_train=row.proposals[0],
        rpn_fg_iou_thresh=row.rpn_foreground_iou,
        box_head=heads.box_head, box_predictor=heads.box_predictor,
        box_batch_size_per_image=row.rois_per_image,
        mask_head=heads.mask_head, mask_predictor=heads.mask_predictor,
    )  # fmt: skip
    network.load_state_dict(inputs.state, strict=True)
    return network


def _sample(picture: Picture) -> tuple[Tensor, Target]:
    """float32 (3, H, W) in 0..1, and boxes, labels and full-size masks, as the reference's dataset makes them."""
    assert picture.path is not None
    pixels = read_image(picture.path, raw_pixels=picture.raw_pixels)
    boxes, labels, masks = [], [], []
    for annotation in picture.annotations:
        mask = annotation.mask(picture.size)
        if not annotation.iscrowd and mask.crop(0)[0].size:
            boxes.append(mask.boxes()[0])
            labels.append(annotation.label + 1)
            masks.append(mask.full(0))
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float().div(255)
    return image, {
        "boxes": torch.from_numpy(np.array(boxes, np.float32)).view(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "masks": torch.from_numpy(np.array(masks, np.uint8)),
    }


@contextmanager
def _keyed(network: Any, pictures: int) -> Iterator[None]:
    """Let both samplers draw what segcli draws from the same keys; its order is RPN, then RoIs, in each picture."""
    random = generators([CHECK_KEY + i for i in range(pictures)], pictures, torch.device("cpu"))
    parts = (network.rpn, network.roi_heads)
    before = [part.fg_bg_sampler for part in parts]
    for part, sampler in zip(parts, before, strict=True):
        part.fg_bg_sampler = _drawing(sampler, random)
    try:
        yield
    finally:
        for part, sampler in zip(parts, before, strict=True):
            part.fg_bg_sampler = sampler


def _drawing(sampler: Any, random: list[torch.Generator]) -> Callable[[list[Tensor]], Any]:
    def sample(labels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        found = []
        for label, generator in zip(labels, random, strict=True):
            kinds = torch.full(label.shape, BACKGROUND, dtype=torch.int8)
            kinds.masked_fill_(label.cpu() >= 1, FOREGROUND).masked_fill_(label.cpu() < 0, IGNORED)
            drawn = draw(kinds, sampler.batch_size_per_image, sampler.positive_fraction, generator)
            masks = [torch.zeros(label.shape, dtype=torch.uint8) for _ in range(2)]
            masks[0][drawn.rows[drawn.foreground]] = 1
            masks[1][drawn.rows[~drawn.foreground]] = 1
            found.append([mask.to(label.device) for mask in masks])
        return [f[0] for f in found], [f[1] for f in found]

    return sample
