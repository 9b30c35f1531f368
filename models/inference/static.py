"""Mask R-CNN at inference for GPUs: every shape is fixed by the input's, so that nothing waits for the device.

The same arithmetic as `segcli.models.inference.detector`. What is not found fills slots that are marked as empty; the
host learns how many there are with the results themselves, in one copy. So a forward pass can be a CUDA graph.

It has run on CPUs, where its shapes are as fixed; `scripts/gpu_check.sh` runs it on a GPU.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from segcli.models.inference.heads import BoxHead, MaskHead
from segcli.models.inference.static_heads import CANDIDATES, Slots, StaticSelector
from segcli.models.inference.static_proposals import StaticProposer
from segcli.models.inference.trunk import Trunk, TrunkOutput
from segcli.models.inference.units import to_type
from segcli.models.mask_rcnn import Detections, MaskRCNN
from segcli.models.roi_align import roi_align_pyramid

_SCALES = (1 / 4, 1 / 8, 1 / 16, 1 / 32)
_MASKS_AT_ONCE = 512


class StaticDetections(NamedTuple):
    """Objects of N pictures in D slots each, on the device; the filled slots first, best score first.

    Attributes:
        boxes: float32 (N, D, 4), xyxy in input pixels; of no meaning in empty slots.
        scores: float32 (N, D); −1 in empty slots.
        labels: int64 (N, D), 0-based, no background; −1 in empty slots.
        masks: float32 (N, D, 28, 28), probability inside the box; of no meaning in empty slots.
        counts: int64 (N,), filled slots.
        short: bool (N,): detections may be missing, and the picture has to be done again in shapes that are not fixed;
            see `StaticSelector`.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor
    counts: Tensor
    short: Tensor


class StaticDetector(nn.Module):
    """A `MaskRCNN` ready to run in fixed shapes. Weights are copied; the network is not changed.

    Attributes:
        trunk: may be replaced by another module of the same function (a compiled one).
        dtype: of features and heads; boxes, scores and NMS are float32.
        device: where it runs.

    Args:
        network: the weights.
        device: where it runs.
        dtype: float32 or bfloat16.
        score: lowest score kept, exclusive.
        max_detections: slots per picture.
        candidates: see `StaticSelector`.
    """

    def __init__(
        self,
        network: MaskRCNN,
        device: torch.device | str = "cuda",
        dtype: torch.dtype = torch.float32,
        *,
        score: float,
        max_detections: int,
        candidates: int = CANDIDATES,
    ) -> None:
        super().__init__()
        heads = network.roi_heads
        self.score, self.max_detections = score, max_detections
        self.device, self.dtype = torch.device(device), dtype
        self.trunk = Trunk(network).to_type(dtype)
        self.box_head, self.mask_head = BoxHead(heads), MaskHead(heads)
        self.propose = StaticProposer(network.rpn)
        self.select = StaticSelector(heads, candidates)
        self._numerics, self._backend = heads.box_roi_pool.numerics, heads.box_roi_pool.backend
        self._sides = (heads.box_roi_pool.output_size[0], heads.mask_roi_pool.output_size[0])
        for head in (self.box_head, self.mask_head):
            to_type(head, dtype)
        self.to(self.device).eval()

    def forward(self, images: Tensor, sizes: Tensor) -> StaticDetections:
        """Objects of each picture.

        Args:
            images: (N, 3, H, W) of any float type, normalised, zero-padded at the right and bottom.
            sizes: float32 (N, 2), (h, w) of each picture's valid area.
        """
        with torch.inference_mode():
            found = self.run_trunk(images)
            padded = (images.shape[2], images.shape[3])
            proposals, valid = self.propose(found, padded, sizes)
            slots = self.boxes(found, proposals, valid, sizes)
            return self.finish(slots, self.masks(found, slots))

    def run_trunk(self, images: Tensor) -> TrunkOutput:
        """Features, logits and deltas."""
        return Trunk.grouped(self.trunk(images.contiguous(memory_format=torch.channels_last)))

    def boxes(self, found: TrunkOutput, proposals: Tensor, valid: Tensor, sizes: Tensor) -> Slots:
        """Boxes, scores and labels of proposals float32 (N, R, 4), of which bool (N, R) are there."""
        N, R = valid.shape
        pooled = self._pool(found, proposals, valid, self._sides[0])
        logits, deltas = self.box_head(pooled)
        return self.select(
            logits.view(N, R, -1), deltas.view(N, R, -1), proposals, valid, sizes,
            score=self.score, most=self.max_detections,
        )  # fmt: skip

    def masks(self, found: TrunkOutput, slots: Slots) -> Tensor:
        """Probabilities float32 (N, D, 28, 28), each of its box's own class."""
        pooled = self._pool(found, slots.boxes, slots.filled, self._sides[1])
        pieces = zip(
            torch.split(pooled, _MASKS_AT_ONCE),
            torch.split(slots.labels.flatten(), _MASKS_AT_ONCE),
            strict=True,
        )
        masks = torch.cat([self.mask_head(p, k) for p, k in pieces])
        return masks.view(*slots.filled.shape, *masks.shape[1:])

    def finish(self, slots: Slots, masks: Tensor) -> StaticDetections:
        """What leaves the detector."""
        return StaticDetections(
            slots.boxes, slots.scores, slots.labels - 1, masks, slots.filled.sum(1), slots.short
        )

    def _pool(self, found: TrunkOutput, boxes: Tensor, filled: Tensor, side: int) -> Tensor:
        """RoIAlign of every slot; zeros in empty ones."""
        N, R = filled.shape
        picture = torch.arange(N, dtype=boxes.dtype, device=boxes.device)[:, None].expand(N, R)
        rois = torch.cat((torch.where(filled, picture, -1.0)[:, :, None], boxes), 2).flatten(0, 1)
        numerics = self._numerics
        return roi_align_pyramid(
            found.features, rois, (side, side), _SCALES,
            level_rule=numerics.level_rule, sampling_ratio=numerics.roi_sampling_ratio,
            aligned=numerics.roi_aligned, backend=self._backend,
        )  # fmt: skip


def on_host(found: StaticDetections) -> StaticDetections:
    """A copy in the host's memory, after one wait for the device for all of it."""
    if not found.boxes.is_cuda:
        return found
    copies = [torch.empty(t.shape, dtype=t.dtype, pin_memory=True) for t in found]
    for target, source in zip(copies, found, strict=True):
        target.copy_(source, non_blocking=True)
    torch.cuda.current_stream(found.boxes.device).synchronize()
    return StaticDetections(*copies)


def per_picture(found: StaticDetections) -> list[Detections]:
    """Filled slots only, one `Detections` per picture.

    Args:
        found: in the host's memory (`on_host`); else each picture waits for the device.
    """
    rows = zip(found.boxes, found.scores, found.labels, found.masks, strict=True)
    return [
        Detections(*(tensor[:count] for tensor in row))
        for row, count in zip(rows, found.counts.tolist(), strict=True)
    ]
