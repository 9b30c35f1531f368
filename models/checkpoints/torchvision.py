"""torchvision's names, which are ours; names of before 2022 are brought up to date.

The zoo's own v1 file still has the old ones. torchvision renames them in loading hooks of its modules
(rpn.py `RPNHead`, ops/feature_pyramid_network.py, mask_rcnn.py `MaskRCNNHeads`); so that no network needs hooks, it
happens here.
"""

from __future__ import annotations

from torch import Tensor

from segcli.models.checkpoints.names import KeyMap

_WB = r"(weight|bias)"
KEYS = KeyMap(
    family="torchvision",
    rename=[
        (rf"rpn\.head\.conv\.{_WB}", r"rpn.head.conv.0.0.\1"),
        (rf"backbone\.fpn\.(inner|layer)_blocks\.(\d+)\.{_WB}", r"backbone.fpn.\1_blocks.\2.0.\3"),
        *(
            (rf"roi_heads\.mask_head\.mask_fcn{index + 1}\.{_WB}", rf"roi_heads.mask_head.{index}.0.\1")
            for index in range(4)
        ),
        (r"(backbone\.(?:body|fpn)\..+|rpn\.head\..+)", r"\1"),
        (r"(roi_heads\.(?:box_head|box_predictor|mask_head|mask_predictor)\..+)", r"\1"),
    ],
    refuse=[
        (r"roi_heads\.keypoint_", "a keypoint head"),
        (r"head\.(classification_head|regression_head)\.", "a one-stage detector (RetinaNet, SSD, FCOS)"),
        (r"backbone\.fpn\.extra_blocks\.", "an FPN with convolutions above P5"),
    ],
)  # fmt: skip


def to_unified(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Today's names for torchvision's; the tensors themselves are shared.

    Raises:
        ValueError: not the weights of a torchvision Mask R-CNN with FPN.
    """
    return KEYS.apply(state)
