"""Region proposal network in training (Ren et al. 2015): proposals, and losses of a sample of anchors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection._utils import encode_boxes

from segcli.models.conventions import Numerics
from segcli.models.training.cells import Cells, inside, patches_at
from segcli.models.training.matching import Thresholds, left_alone, match
from segcli.models.training.options import LossConfig
from segcli.models.training.proposals import Proposals, propose
from segcli.models.training.sampling import Sample, draw
from segcli.models.training.units import compute_dtype, convolve, run_block


@dataclass(frozen=True, eq=False)
class RpnResult:
    """What the RPN gives in training.

    Attributes:
        proposals: per picture.
        objectness: sum of the loss, float32 0-d.
        box: likewise.
        count: what both are divided by.
    """

    proposals: list[Proposals]
    objectness: Tensor
    box: Tensor
    count: Tensor


def run_rpn(
    rpn: Any,
    numerics: Numerics,
    levels: list[Tensor],
    padded: tuple[int, int],
    sizes: list[tuple[int, int]],
    objects: list[Tensor],
    others: list[Tensor | None],
    generators: list[torch.Generator],
    config: LossConfig,
) -> RpnResult:
    """Proposals and losses of a batch.

    Args:
        rpn: head, anchors, thresholds and counts.
        numerics: conventions.
        levels: P2 … P6.
        padded: (H, W) of the input.
        sizes: (h, w) of each picture.
        objects: per picture float32 (G, 4), xyxy in input pixels.
        others: per picture likewise (I, 4), objects that are not looked at; None = there are none.
        generators: per picture.
        config: variant of the losses.
    """
    logits, deltas = _dense(rpn.head, levels)
    anchors = rpn.anchor_generator.kept_per_level(padded, logits)
    every = torch.cat(anchors)
    samples, owners = [], []
    for boxes, rest, generator in zip(objects, others, generators, strict=True):
        owner, kinds = match(every, boxes, _thresholds(rpn))
        kinds = left_alone(kinds, every, rest, _thresholds(rpn))
        sample = draw(kinds, *_counts(rpn), generator)
        samples.append(sample)
        owners.append(_targets(rpn, every, boxes, owner, sample))
    chosen = _at_samples(rpn.head, levels, samples, logits)
    objectness, box, count = _losses(chosen, samples, torch.cat(owners), config)
    if config.rpn_denominator == "configured":
        count = torch.full_like(count, rpn.fg_bg_sampler.batch_size_per_image * len(objects))
    proposals = propose(rpn, numerics, logits, deltas, anchors, sizes)
    return RpnResult(proposals, objectness, box, count)


def _thresholds(rpn: Any) -> Thresholds:
    matcher = rpn.proposal_matcher
    return Thresholds(
        matcher.high_threshold, matcher.low_threshold, matcher.allow_low_quality_matches
    )


def _counts(part: Any) -> tuple[int, float]:
    """Rows drawn per picture, and the largest share of foreground among them."""
    return part.fg_bg_sampler.batch_size_per_image, part.fg_bg_sampler.positive_fraction


def _targets(rpn: Any, anchors: Tensor, boxes: Tensor, owner: Tensor, sample: Sample) -> Tensor:
    """Deltas float32 (S, 4) from each sampled anchor to its object; those of background mean nothing."""
    if len(boxes) == 0:
        return anchors.new_zeros((len(sample.rows), 4))
    found: Tensor = encode_boxes(
        boxes[owner[sample.rows]], anchors[sample.rows], rpn.box_coder.weights
    )
    return found


@torch.no_grad()
def _dense(head: Any, levels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Logits float32 (N, A, h, w) and deltas float32 (N, 4 · A, h, w) of each level, without a graph."""
    logits, deltas = [], []
    for x in levels:
        for block in head.conv:
            x = run_block(block, x)
        logits.append(convolve(x, head.cls_logits).float())
        deltas.append(convolve(x, head.bbox_pred).float())
    return logits, deltas


def _at_samples(
    head: Any, levels: list[Tensor], samples: list[Sample], logits: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """Logits float32 (ΣS,) and deltas float32 (ΣS, 4) of the sampled anchors alone, with a graph."""
    cells, anchor = _cells(samples, logits)
    depth = len(head.conv)
    levels = [level.to(compute_dtype(level)) for level in levels]
    x = patches_at(levels, cells, depth)
    for k, block in enumerate(head.conv):
        x = F.relu(F.conv2d(x, block[0].weight.to(x.dtype), block[0].bias.to(x.dtype)))
        if depth - k > 1:  # what lies off the map is padding for the next convolution
            x = x * inside(levels, cells, depth - k - 1)[:, None]
    rows = x.flatten(1)
    A = head.cls_logits.out_channels
    found = F.linear(rows, _flat(head.cls_logits), head.cls_logits.bias.to(rows.dtype))
    moves = F.linear(rows, _flat(head.bbox_pred), head.bbox_pred.bias.to(rows.dtype))
    at = anchor[:, None]
    chosen = moves.view(-1, A, 4).gather(1, at[:, :, None].expand(-1, -1, 4))
    return found.gather(1, at)[:, 0].float(), chosen[:, 0].float()


def _flat(convolution: Any) -> Tensor:
    weight: Tensor = convolution.weight
    return weight.flatten(1)


def _cells(samples: list[Sample], logits: list[Tensor]) -> tuple[Cells, Tensor]:
    """Where the sampled anchors lie, and which of their cell's anchors each is: int64 (ΣS,)."""
    A = logits[0].shape[1]
    rows = torch.cat([s.rows for s in samples])
    parts = [torch.full_like(s.rows, i) for i, s in enumerate(samples)]
    level = torch.zeros_like(rows)
    start = torch.zeros_like(rows)
    width = torch.full_like(rows, logits[0].shape[3])
    end = 0
    for index, map_ in enumerate(logits[:-1]):
        end += map_[0].numel()
        after = rows >= end
        level += after
        start = torch.where(after, end, start)
        width = torch.where(after, logits[index + 1].shape[3], width)
    place = (rows - start).div(A, rounding_mode="floor")
    y = place.div(width, rounding_mode="floor")
    return Cells(torch.cat(parts), level, y, place - y * width), rows - start - place * A


def _losses(
    chosen: tuple[Tensor, Tensor], samples: list[Sample], targets: Tensor, config: LossConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of both losses, and how many anchors were sampled."""
    logits, deltas = chosen
    foreground = torch.cat([s.foreground for s in samples])
    valid = torch.cat([s.valid for s in samples])
    each = F.binary_cross_entropy_with_logits(logits, foreground.float(), reduction="none")
    # a target of background may be infinite, and its zero gradient times that would not be 0
    targets = targets.masked_fill(~foreground[:, None], 0)
    deltas = deltas.masked_fill(~foreground[:, None], 0)
    box = F.smooth_l1_loss(deltas, targets, beta=config.rpn_smooth_l1_beta, reduction="sum")
    return each.masked_fill(~valid, 0).sum(), box, valid.sum().float()
