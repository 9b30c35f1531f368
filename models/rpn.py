"""Region proposals (Ren et al. 2015) by the conventions: anchors, ranking, what is dropped. Names are torchvision's."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork

from segcli.models.boxes import DeltaCoder, batched_nms, clipped, wide_enough
from segcli.models.conventions import Numerics
from segcli.models.spec import Anchors

STRIDES = (4, 8, 16, 32, 64)
_KEPT_SIZES = 16  # the anchors of an input of 800 × 1344 are 4 MB


class PyramidAnchors(AnchorGenerator):  # type: ignore[misc]  # torchvision has no types
    """Anchors of P2 … P6.

    Attributes:
        cell_anchors: per level float32 (A, 4) around the origin, ratio by ratio and in it size by size.

    Args:
        anchors: sizes and ratios.
        numerics: rounding, strides and offset.

    Source: torchvision/models/detection/anchor_utils.py; detectron2/modeling/anchor_generator.py; mmdet/models/
    task_modules/prior_generators/anchor_generator.py. All three agree to the bit but for what `numerics` says.
    """

    def __init__(self, anchors: Anchors, numerics: Numerics) -> None:
        super().__init__(anchors.sizes, (anchors.aspect_ratios,) * len(anchors.sizes))
        self.numerics = numerics
        self.cell_anchors = [
            cell_anchors(sizes, anchors.aspect_ratios, rounded=numerics.anchors_rounded)
            for sizes in anchors.sizes
        ]
        self._kept: dict[tuple[object, ...], list[Tensor]] = {}

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Anchors of each picture, float32 (ΣH·W·A, 4) xyxy, the same for all; see `per_level`."""
        padded = image_list.tensors.shape[-2:]
        shapes = [(level.shape[-2], level.shape[-1]) for level in feature_maps]
        every = torch.cat(self.per_level(tuple(padded), shapes, feature_maps[0].device))
        return [every] * len(image_list.image_sizes)

    def per_level(
        self, padded: tuple[int, int], shapes: list[tuple[int, int]], device: torch.device
    ) -> list[Tensor]:
        """Anchors of each level.

        Args:
            padded: (H, W) of the network's input.
            shapes: (h, w) of each level.
            device: where they are wanted.

        Returns:
            Per level float32 (h · w · A, 4): cells row by row, the anchors of a cell together.
        """
        levels = []
        for level, (cell, (h, w)) in enumerate(zip(self.cell_anchors, shapes, strict=True)):
            step_y, step_x = self.strides(level, padded, (h, w))
            offset = self.numerics.anchor_offset
            y = torch.arange(h, device=device) * step_y + offset * step_y
            x = torch.arange(w, device=device) * step_x + offset * step_x
            y, x = torch.meshgrid(y, x, indexing="ij")
            shift = torch.stack((x, y, x, y), 2).view(-1, 1, 4).float()
            levels.append((shift + cell.to(device)).view(-1, 4))
        return levels

    def kept_per_level(self, padded: tuple[int, int], levels: list[Tensor]) -> list[Tensor]:
        """`per_level` for maps (N, C, h, w), made once for each size of the input while it is among the last ones."""
        shapes = [(level.shape[2], level.shape[3]) for level in levels]
        key = (padded, *shapes, levels[0].device)
        found = self._kept.get(key)
        if found is None:
            with torch.inference_mode(False):  # training may come after an evaluation
                found = self.per_level(padded, shapes, levels[0].device)
            for old in list(self._kept)[: 1 - _KEPT_SIZES]:
                self._kept.pop(old, None)  # another thread may have been first
            self._kept[key] = found
        return found

    def strides(
        self, level: int, padded: tuple[int, int], shape: tuple[int, int]
    ) -> tuple[int, int]:
        """Pixels between the anchors of one level, (y, x)."""
        if self.numerics.anchor_stride == "fixed":
            return STRIDES[level], STRIDES[level]
        return padded[0] // shape[0], padded[1] // shape[1]


def cell_anchors(
    sizes: tuple[int, ...], aspect_ratios: tuple[float, ...], *, rounded: bool
) -> Tensor:
    """float32 (A, 4), xyxy around the origin; always on the CPU, whatever torch's default device is."""
    heights = torch.tensor(aspect_ratios, dtype=torch.float32, device="cpu").sqrt()
    scales = torch.tensor(sizes, dtype=torch.float32, device="cpu")
    w = ((1 / heights)[:, None] * scales).view(-1)
    h = (heights[:, None] * scales).view(-1)
    cell = torch.stack((-w, -h, w, h), 1) / 2
    return cell.round() if rounded else cell


def by_cell(level: Tensor, values: int) -> Tensor:
    """(N, A · values, H, W) as (N, H · W · A, values): no copy where the level lies channels last."""
    return level.permute(0, 2, 3, 1).reshape(len(level), -1, values)


def best_anchors(logits: Tensor, count: int, numerics: Numerics) -> tuple[Tensor, Tensor]:
    """The best anchors of one level of one picture.

    Args:
        logits: float32 (M,).
        count: most that are taken.
        numerics: `rpn_rank`.

    Returns:
        float32 (K,) scores by which NMS orders them, falling, and int64 (K,) their rows.
    """
    count = min(count, len(logits))
    if numerics.rpn_rank == "sigmoid":
        # saturated scores tie, and of those the first are taken (mmdet/models/dense_heads/rpn_head.py sorts)
        scores, rows = torch.sigmoid(logits).sort(descending=True, stable=True)
        return scores[:count], rows[:count]
    best, rows = logits.topk(count)
    return (best if numerics.rpn_rank == "logit" else torch.sigmoid(best)), rows


def select_proposals(
    boxes: Tensor,
    scores: Tensor,
    levels: Tensor,
    size: tuple[int, int],
    numerics: Numerics,
    *,
    overlap: float,
    most: int,
) -> tuple[Tensor, Tensor]:
    """Proposals of one picture.

    Args:
        boxes: float32 (N, 4), decoded, not clipped.
        scores: float32 (N,), of `best_anchors`.
        levels: int64 (N,).
        size: (h, w) of the valid area.
        numerics: what is dropped, and how NMS works.
        overlap: limit of NMS.
        most: proposals kept.

    Returns:
        Boxes float32 (R, 4) and scores float32 (R,), best first.
    """
    if numerics.drop_non_finite:
        finite = boxes.isfinite().all(1) & scores.isfinite()
        boxes, scores, levels = boxes[finite], scores[finite], levels[finite]
    boxes = clipped(boxes, size)
    used = wide_enough(boxes, numerics.rpn_min_size, inclusive=numerics.rpn_min_inclusive)
    boxes, scores, levels = boxes[used], scores[used], levels[used]
    kept = batched_nms(boxes, scores, levels, overlap, numerics.nms_mode)[:most]
    return boxes[kept], scores[kept]


class ProposalNetwork(RegionProposalNetwork):  # type: ignore[misc]  # torchvision has no types
    """torchvision's RPN whose proposals follow the conventions; its losses are torchvision's.

    Args:
        numerics: conventions.
        settings: of `RegionProposalNetwork`.
    """

    def __init__(self, numerics: Numerics, **settings: object) -> None:
        super().__init__(**settings)
        self.numerics = numerics
        self.box_coder = DeltaCoder(numerics, scaled=False)

    def filter_proposals(
        self,
        proposals: Tensor,
        objectness: Tensor,
        image_shapes: list[tuple[int, int]],
        num_anchors_per_level: list[int],
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Proposals and their scores per picture; torchvision's signature.

        Args:
            proposals: float32 (N, M, 4), all anchors decoded.
            objectness: float32, N · M logits.
            image_shapes: per picture (h, w) of its valid area.
            num_anchors_per_level: M by level.
        """
        logits = objectness.detach().reshape(len(proposals), -1)
        found = [
            self._of_picture(boxes, row, size, num_anchors_per_level)
            for boxes, row, size in zip(proposals, logits, image_shapes, strict=True)
        ]
        return [boxes for boxes, _ in found], [scores for _, scores in found]

    def _of_picture(
        self, boxes: Tensor, logits: Tensor, size: tuple[int, int], counts: list[int]
    ) -> tuple[Tensor, Tensor]:
        parts = []
        levels = zip(torch.split(boxes, counts), torch.split(logits, counts), strict=True)
        for level, (its_boxes, its_logits) in enumerate(levels):
            scores, rows = best_anchors(its_logits, self.pre_nms_top_n(), self.numerics)
            parts.append((its_boxes[rows], scores, torch.full_like(rows, level)))
        every, scores, number = (torch.cat(part) for part in zip(*parts, strict=True))
        limits = {"overlap": self.nms_thresh, "most": self.post_nms_top_n()}
        return select_proposals(every, scores, number, size, self.numerics, **limits)
