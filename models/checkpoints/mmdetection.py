"""mmdetection's names, 2.0 and later and before (1.x: heads without `roi_head.`, background first).

The class axis stays as it is in the file; which row is background is a matter of conventions.
"""

from __future__ import annotations

from torch import Tensor

from segcli.models.checkpoints.names import NORM, KeyMap

_HEADS = r"(?:roi_head\.)?"
_BLOCK = r"(layer[1-4]\.\d+)"
_WB = r"(weight|bias)"
KEYS = KeyMap(
    family="mmdetection",
    rename=[
        (r"backbone\.conv1\.weight", r"backbone.body.conv1.weight"),
        (rf"backbone\.bn1\.{NORM}", r"backbone.body.bn1.\1"),
        (rf"backbone\.{_BLOCK}\.conv([123])\.weight", r"backbone.body.\1.conv\2.weight"),
        (rf"backbone\.{_BLOCK}\.bn([123])\.{NORM}", r"backbone.body.\1.bn\2.\3"),
        (rf"backbone\.{_BLOCK}\.downsample\.0\.weight", r"backbone.body.\1.downsample.0.weight"),
        (rf"backbone\.{_BLOCK}\.downsample\.1\.{NORM}", r"backbone.body.\1.downsample.1.\2"),
        (rf"neck\.lateral_convs\.([0-3])\.conv\.{_WB}", r"backbone.fpn.inner_blocks.\1.0.\2"),
        (rf"neck\.fpn_convs\.([0-3])\.conv\.{_WB}", r"backbone.fpn.layer_blocks.\1.0.\2"),
        (rf"rpn_head\.rpn_conv\.{_WB}", r"rpn.head.conv.0.0.\1"),
        (rf"rpn_head\.rpn_cls\.{_WB}", r"rpn.head.cls_logits.\1"),
        (rf"rpn_head\.rpn_reg\.{_WB}", r"rpn.head.bbox_pred.\1"),
        (rf"{_HEADS}bbox_head\.shared_fcs\.0\.{_WB}", r"roi_heads.box_head.fc6.\1"),
        (rf"{_HEADS}bbox_head\.shared_fcs\.1\.{_WB}", r"roi_heads.box_head.fc7.\1"),
        (rf"{_HEADS}bbox_head\.fc_cls\.{_WB}", r"roi_heads.box_predictor.cls_score.\1"),
        (rf"{_HEADS}bbox_head\.fc_reg\.{_WB}", r"roi_heads.box_predictor.bbox_pred.\1"),
        (rf"{_HEADS}mask_head\.convs\.([0-3])\.conv\.{_WB}", r"roi_heads.mask_head.\1.0.\2"),
        (rf"{_HEADS}mask_head\.upsample\.{_WB}", r"roi_heads.mask_predictor.conv5_mask.\1"),
        (rf"{_HEADS}mask_head\.conv_logits\.{_WB}", r"roi_heads.mask_predictor.mask_fcn_logits.\1"),
    ],
    drop=[r"data_preprocessor\..*"],
    refuse=[
        (rf"{_HEADS}(bbox|mask)_head\.\d+\.|roi_head\.semantic_|{_HEADS}semantic_", "Cascade or HTC"),
        (r"(roi_head\.)?mask_iou_head\.", "Mask Scoring R-CNN"),
        (r"(roi_head\.)?point_head\.|(roi_head\.)?mask_head\.fcs\.", "PointRend"),
        (r"(roi_head\.)?(grid_head|keypoint_head|glbctx_head)\.", "a head of another method"),
        (r"(roi_head\.)?mask_head\.upsample\.(?!weight|bias)", "a mask head with CARAFE"),
        (r"(roi_head\.)?bbox_head\.(shared_convs|cls_|reg_|conv)", "a box head with convolutions"),
        (r"(roi_head\.)?shared_head\.", "C4 (a shared head)"),
        (r"(neck|rpn_head|roi_head|bbox_head|mask_head)\..*\.(gn|bn|norm)\.", "a norm in FPN or heads"),
        (r"backbone\..*\.gn\d*\.|backbone\.gn1\.", "a backbone with group norm"),
        (r"backbone\..*\.conv_offset", "a backbone with deformable convolutions"),
        (r"backbone\..*(context_block|gen_attention_block|plugin)", "a backbone with attention blocks"),
        (r"backbone\.stem\.", "a backbone with a deep stem (ResNet-D, ResNeSt)"),
        (r"backbone\.(patch_embed|stages|stage\d|transition|downsample_layers)", "this backbone"),
        (r"backbone\..*\.conv2\.(fc|bn|conv)|backbone\..*\.convs\.", "ResNeSt or Res2Net"),
        (r"neck\.fpn_convs\.([4-9]|\d\d)", "an FPN with convolutions above P5"),
        (r"neck\.\d+\.|neck\.(?!lateral_convs|fpn_convs)", "a neck other than FPN"),
        (r"rpn_head\.rpn_conv\.\d+\.", "an RPN of several convolutions"),
        (r"rpn_head\.(?!rpn_)", "an RPN of another method"),
        (r"bbox_head\.(retina|cls_convs|reg_convs|anchor|multi_level)", "a one-stage detector"),
    ],
)  # fmt: skip


def is_legacy(state: dict[str, Tensor]) -> bool:
    """Whether the weights are of mmdetection 1.x; told by their names and shapes, not by a version text."""
    return "bbox_head.fc_cls.weight" in state


def to_unified(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our names for mmdetection's; the tensors themselves are shared.

    Raises:
        ValueError: not the weights of an mmdetection Mask R-CNN with ResNet and FPN.
    """
    return KEYS.apply(state)
