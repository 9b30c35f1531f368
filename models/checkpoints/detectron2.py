"""detectron2's names. Background is the last class row, and only the class scores have it."""

from __future__ import annotations

from torch import Tensor

from segcli.models.checkpoints.names import NORM, KeyMap

_BODY = r"backbone\.bottom_up\."
_RPN = r"proposal_generator\.rpn_head\."
_WB = r"(weight|bias)"


def _stage(stage: int) -> list[tuple[str, str]]:
    """detectron2 counts the stages of a ResNet from 2, torchvision from 1."""
    theirs, ours = rf"{_BODY}res{stage + 1}\.(\d+)\.", rf"backbone.body.layer{stage}.\1."
    return [
        (rf"{theirs}conv([123])\.weight", rf"{ours}conv\2.weight"),
        (rf"{theirs}conv([123])\.norm\.{NORM}", rf"{ours}bn\2.\3"),
        (rf"{theirs}shortcut\.weight", rf"{ours}downsample.0.weight"),
        (rf"{theirs}shortcut\.norm\.{NORM}", rf"{ours}downsample.1.\2"),
    ]


def _level(level: int) -> list[tuple[str, str]]:
    """Names of the pyramid count from P2, torchvision's from 0."""
    return [
        (rf"backbone\.fpn_lateral{level + 2}\.{_WB}", rf"backbone.fpn.inner_blocks.{level}.0.\1"),
        (rf"backbone\.fpn_output{level + 2}\.{_WB}", rf"backbone.fpn.layer_blocks.{level}.0.\1"),
    ]


def _mask_convolution(index: int) -> tuple[str, str]:
    return (
        rf"roi_heads\.mask_head\.mask_fcn{index + 1}\.{_WB}",
        rf"roi_heads.mask_head.{index}.0.\1",
    )


KEYS = KeyMap(
    family="detectron2",
    rename=[
        (rf"{_BODY}stem\.conv1\.weight", r"backbone.body.conv1.weight"),
        (rf"{_BODY}stem\.conv1\.norm\.{NORM}", r"backbone.body.bn1.\1"),
        *(rule for stage in range(1, 5) for rule in _stage(stage)),
        *(rule for level in range(4) for rule in _level(level)),
        (rf"{_RPN}conv\.{_WB}", r"rpn.head.conv.0.0.\1"),
        (rf"{_RPN}objectness_logits\.{_WB}", r"rpn.head.cls_logits.\1"),
        (rf"{_RPN}anchor_deltas\.{_WB}", r"rpn.head.bbox_pred.\1"),
        (rf"roi_heads\.box_head\.fc1\.{_WB}", r"roi_heads.box_head.fc6.\1"),
        (rf"roi_heads\.box_head\.fc2\.{_WB}", r"roi_heads.box_head.fc7.\1"),
        (rf"roi_heads\.box_predictor\.(cls_score|bbox_pred)\.{_WB}", r"roi_heads.box_predictor.\1.\2"),
        *(_mask_convolution(index) for index in range(4)),
        (rf"roi_heads\.mask_head\.deconv\.{_WB}", r"roi_heads.mask_predictor.conv5_mask.\1"),
        (rf"roi_heads\.mask_head\.predictor\.{_WB}", r"roi_heads.mask_predictor.mask_fcn_logits.\1"),
    ],
    # buffers of old files; detectron2 itself ignores them (checkpoint/detection_checkpoint.py:128-142)
    drop=[r"pixel_(mean|std)", r"(proposal_generator\.)?anchor_generator\.cell_anchors\..*"],
    refuse=[
        (r"roi_heads\.(box|mask)_(head|predictor)\.\d+\.", "Cascade R-CNN"),
        (r"roi_heads\.keypoint_head\.", "a keypoint head"),
        (r"roi_heads\.mask_(coarse|point)_head\.|roi_heads\.mask_head\.(coarse_head|point_head)\.", "PointRend"),
        (r"roi_heads\.mask_iou_head\.|roi_heads\.maskiou", "Mask Scoring R-CNN"),
        (r"roi_heads\.res5\.", "C4"),
        (r"backbone\.(stem|res[2-5])\.", "DC5 or another network without FPN"),
        (r"sem_seg_head\.", "Panoptic FPN"),
        (r"head\.|cls_subnet", "RetinaNet"),
        (rf"{_RPN}conv\.conv\d", "an RPN of several convolutions (conv_dims)"),
        (r"proposal_generator\.(?!rpn_head|anchor_generator)|proposal_generator\.rpn_head\.(?!conv|objectness|anchor_d)",
         "an RPN of another method"),
        (r"backbone\.fpn_.*\.norm\.|roi_heads\..*\.norm\.", "a norm in FPN or heads"),
        (r"roi_heads\.box_head\.conv\d", "a box head with convolutions"),
        (r".*\.conv2_offset\.", "a backbone with deformable convolutions"),
        (r"backbone\.bottom_up\.(?!stem\.conv1|res[2-5])", "a backbone other than ResNet or ResNeXt"),
        (r"backbone\.top_block\.", "an FPN with convolutions above P5"),
    ],
)  # fmt: skip


def to_unified(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our names for detectron2's; the tensors themselves are shared.

    Raises:
        ValueError: not the weights of a detectron2 Mask R-CNN with ResNet and FPN.
    """
    return KEYS.apply(state)
