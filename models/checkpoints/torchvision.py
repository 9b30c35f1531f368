"""torchvision's published weights: a bare state dict under the names that our network has.

Names of before 2022 (`rpn.head.conv.weight`, `fpn.inner_blocks.0.weight`, `mask_fcn1`) are brought up to date by the
loading hooks of torchvision's own modules.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.pth` file.

    Raises:
        ValueError: not a PyTorch file, one that would run code, or not a state dict.
    """
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error) or "Unsupported global" in str(error):
            raise ValueError(
                "refused: holds more than tensors, loading it would run code"
            ) from error
        raise ValueError("no readable PyTorch file") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError) as error:
        raise ValueError(f"no readable PyTorch file ({_first_line(error)})") from error
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError("not a bare state dict (names to tensors)")
    return content


def foreground_classes(state: dict[str, Tensor]) -> int:
    """Foreground slots of the class predictor."""
    return int(state["roi_heads.box_predictor.cls_score.weight"].shape[0]) - 1


def is_mask_rcnn(state: dict[str, Tensor]) -> bool:
    """Whether the names are those of torchvision's Mask R-CNN."""
    wanted = (
        "backbone.body.conv1.weight",
        "roi_heads.box_predictor.cls_score.weight",
        "roi_heads.mask_predictor.mask_fcn_logits.weight",
    )
    return all(name in state for name in wanted)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
