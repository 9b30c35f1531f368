"""The trunk compiled by Inductor for training: the same losses and gradients as the plain one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from segcli.models import MaskRCNN
from segcli.models.training.losses import training_losses
from segcli.models.training.prepare import prepare_for_training

Make = Callable[..., MaskRCNN]
MakeObjects = Callable[[list[list[float]], list[int]], dict[str, Tensor]]


def test_both_at_once_are_refused(make_nano: Make) -> None:
    """What is kept for the backward pass is chosen by one of the two."""
    with pytest.raises(ValueError, match="checkpoint_activations and compile exclude each other"):
        prepare_for_training(make_nano(), checkpoint_activations=True, compile=True)


def test_prepared_again_it_is_plain(make_nano: Make) -> None:
    """Nothing of the network is wrapped: its names stay, and the choice can be taken back."""
    network = make_nano()
    names = list(network.state_dict())
    assert prepare_for_training(network, compile=True).training_options.compile
    assert list(network.state_dict()) == names
    assert not prepare_for_training(network).training_options.compile


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler was found")
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_losses_and_gradients_equal_the_plain_ones(
    make_nano: Make,
    make_objects: MakeObjects,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Losses within 1e-5, all gradients together within 1e-4, and something is compiled indeed."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    network = make_nano()
    for parameter in network.backbone.body.parameters():  # the compiled part is shorter by them
        parameter.requires_grad_(False)
    torch.manual_seed(3)
    images, sizes = torch.randn(1, 3, 64, 64), [(64, 64)]
    targets: Any = [make_objects([[4, 6, 40, 50], [30, 8, 60, 30]], [1, 2])]
    found = []
    for compiled in (False, True):
        prepare_for_training(network, compile=compiled)
        losses = training_losses(network, images, sizes, targets, [1]).means()
        wanted = [p for p in network.parameters() if p.requires_grad]
        total = torch.stack(list(losses.values())).sum()
        found.append((losses, torch.cat([g.flatten() for g in torch.autograd.grad(total, wanted)])))
    (plain, expected), (made, gradients) = found
    for name in plain:
        assert made[name].item() == pytest.approx(plain[name].item(), rel=1e-5), name
    assert (gradients - expected).norm() <= 1e-4 * expected.norm()
    assert list(tmp_path.rglob("*.so"))
