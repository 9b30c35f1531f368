"""One training step's losses, on one screen: pyramid -> proposals and RPN losses -> RoIs -> losses of the heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from segcli.models.class_layout import ClassLayout
from segcli.models.mask_targets import mask_targets
from segcli.models.training.loss_sums import LOSSES, LossSums
from segcli.models.training.mask_branch import mask_logits
from segcli.models.training.objects import Objects, Targets, allowed_classes
from segcli.models.training.roi_losses import RoIs, box_losses, mask_loss, mask_rois, sample_rois
from segcli.models.training.rpn_losses import run_rpn
from segcli.models.training.sampling import generators
from segcli.models.training.trunk import compiled_pyramid, pyramid
from segcli.models.training.units import run_block

if TYPE_CHECKING:
    from segcli.models.mask_rcnn import MaskRCNN


def training_losses(
    network: MaskRCNN,
    images: Tensor,
    sizes: list[tuple[int, int]],
    targets: Targets,
    keys: Sequence[int] | None = None,
) -> LossSums:
    """The losses of a batch (He et al. 2017, section 3), as sums and counts.

    Args:
        network: its `training_options` choose the variant.
        images: float32 (N, 3, H, W), normalised, zero-padded at the right and bottom.
        sizes: (h, w) of each picture's valid area, in pixels.
        targets: per picture: `boxes` float32 (G, 4) xyxy in input pixels, `labels` int64 (G,) from 1, `masks` uint8
            (G, 58, 58) patches (`segcli.models.mask_targets`); and as one wants: `key` int64 (), see `keys`, on the
            CPU (on a GPU it is waited for); `classes` bool (K + 1,), background first: the classes that the picture's
            dataset knows, whose logits alone are in the class loss; `others` float32 (I, 4) xyxy: objects that this
            step does not look at, near which nothing is background.
        keys: per picture, what all its random choices are drawn from, so that they depend on neither its batch mates
            nor on the process; None = the targets' `key`, or drawn from torch's own generator where they have none.
    """
    options = network.training_options
    if keys is None and all("key" in target for target in targets):
        keys = [int(target["key"]) for target in targets]
    random = generators(keys, len(targets), images.device)
    levels = _pyramid(network, images)
    objects = [target["boxes"].float() for target in targets]
    others = [target.get("others") for target in targets]
    padded = (images.shape[2], images.shape[3])
    numerics = network.spec.conventions.numerics
    rpn = run_rpn(
        network.rpn, numerics, levels, padded, sizes, objects, others, random, options.losses
    )
    heads, count = network.roi_heads, [len(boxes) for boxes in objects]
    pictures = zip(rpn.proposals, objects, others, random, strict=True)
    rois = [sample_rois(heads, *picture) for picture in pictures]
    masks = [mask_rois(heads, r) for r in rois]
    found = _head_losses(
        network, levels, RoIs.of_batch(rois, count), RoIs.of_batch(masks, count), targets
    )
    sums = (rpn.objectness, rpn.box, *found[:3])
    counts = (rpn.count, rpn.count, found[3], *found[3:])
    return LossSums(dict(zip(LOSSES, sums, strict=True)), dict(zip(LOSSES, counts, strict=True)))


def _pyramid(network: MaskRCNN, images: Tensor) -> list[Tensor]:
    options = network.training_options
    if options.compile:
        return compiled_pyramid(network.backbone, images)
    return pyramid(network.backbone, images, checkpointed=options.checkpoint_activations)


def _head_losses(
    network: MaskRCNN, levels: list[Tensor], rois: RoIs, masks: RoIs, targets: Targets
) -> tuple[Tensor, ...]:
    """Class, box and mask loss, the number of RoIs and of mask RoIs."""
    heads, layout = network.roi_heads, network.spec.conventions.numerics.class_layout
    objects = Objects.of(targets)
    for_boxes, for_masks = heads.box_roi_pool.pool_tables(
        heads.mask_roi_pool, levels[:4], rois.table(rois.valid), masks.table(masks.foreground)
    )
    predicted = heads.box_predictor(_box_features(heads.box_head, for_boxes))
    box = box_losses(
        predicted, rois, objects.labels[rois.owner], objects.boxes[rois.owner],
        allowed_classes(targets, rois), layout, heads.box_coder, network.training_options.losses,
    )  # fmt: skip
    mask = _mask_loss(heads, for_masks, masks, objects, layout)
    return box[0], box[1], mask[0], box[2], mask[1]


def _box_features(head: Any, pooled: Tensor) -> Tensor:
    """(R, C, 7, 7) to (R, D); torchvision's deep head is a sequence, whose norms are folded."""
    if not isinstance(head, nn.Sequential):
        out: Tensor = head(pooled)
        return out
    for part in head:
        pooled = run_block(part, pooled)
    return pooled


def _mask_loss(
    heads: Any, pooled: Tensor, masks: RoIs, objects: Objects, layout: ClassLayout
) -> tuple[Tensor, Tensor]:
    """Sum over the mask RoIs, and their number."""
    if len(pooled) == 0:  # no mask: a loss of nothing, whose gradient is zero and not absent
        parts = (*heads.mask_head.parameters(), *heads.mask_predictor.parameters())
        nothing = torch.stack([part.flatten()[:1].sum() * 0.0 for part in parts]).sum()
        return nothing, torch.zeros_like(nothing)
    logits = mask_logits(heads, pooled, layout.mask_row(objects.labels[masks.owner]))
    wanted = mask_targets(
        objects.masks, objects.boxes, masks.boxes, masks.owner, logits.shape[-1],
        aligned=heads.aligned,
    )  # fmt: skip
    return mask_loss(logits, wanted, masks.foreground)
