"""What is chosen once before training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from segcli.models.training.options import LossConfig, TrainingOptions

if TYPE_CHECKING:
    from segcli.models.mask_rcnn import MaskRCNN


def prepare_for_training(
    network: MaskRCNN,
    *,
    losses: LossConfig | None = None,
    checkpoint_activations: bool = False,
    compile: bool = False,
) -> MaskRCNN:
    """Choose how `training_losses` computes; the same network, in training mode, weights channels last.

    Args:
        network: on its device.
        losses: variant; None = as it is.
        checkpoint_activations: keep less for the backward pass and compute it again: less memory, more time.
        compile: let Inductor compile the trunk (a minute or more at the first step, and again for each new size).

    Raises:
        ValueError: both at once: what Inductor keeps is its own choice.
    """
    if checkpoint_activations and compile:
        raise ValueError(
            "checkpoint_activations and compile exclude each other, found both; choose one"
        )
    options = network.training_options
    network.training_options = TrainingOptions(
        losses=losses or options.losses,
        checkpoint_activations=checkpoint_activations,
        compile=compile,
    )
    network.to(memory_format=torch.channels_last)
    return network.train()
