"""Whether a contestant computes the right thing, in the same run that times it.

The truth is torchvision's operator on the CPU in float32, whose coordinates round as they are written. Its CUDA
operator lets the compiler fuse multiplication and addition, which moves a sample at x = 300 by enough to change a
value by more than 1e-5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from segcli.bench.contestants import TYPES, Contestant
from segcli.bench.inputs import Inputs
from segcli.bench.peers import operator, pieces_of


@dataclass(frozen=True)
class Truth:
    """What every contestant of one type must give; all float32.

    Attributes:
        outputs: of each pooling, (R, C, bins, bins).
        gradients: of each map, (N, C, H, W).
        largest_tap: max |feature|.
        largest_gradient: max |gradient|, over all maps.
    """

    outputs: list[Tensor]
    gradients: list[Tensor]
    largest_tap: float
    largest_gradient: float

    def to(self, device: torch.device) -> Truth:
        """The same on a device."""
        outputs, gradients = ([t.to(device) for t in ts] for ts in (self.outputs, self.gradients))
        return Truth(outputs, gradients, self.largest_tap, self.largest_gradient)


@dataclass(frozen=True)
class Difference:
    """How far a contestant is from the truth.

    Attributes:
        forward: max |difference| of the output; NaN where it cannot do the forward.
        backward: max |difference| of the gradients, relative to the largest one.
        forward_limit: what is allowed.
        backward_limit: what is allowed.
    """

    forward: float
    backward: float
    forward_limit: float
    backward_limit: float


def limits(dtype: str, largest_tap: float) -> tuple[float, float]:
    """Allowed differences: forward absolute, backward relative to the largest gradient.

    fp32: 1e-5 and 1e-4. 16-bit types: their spacing at 1 (2⁻⁷ for bf16, 2⁻¹⁰ for fp16) times the largest feature, and
    the same spacing of the largest gradient.
    """
    if dtype == "fp32":
        return 1e-5, 1e-4
    spacing = torch.finfo(TYPES[dtype]).eps
    return spacing * largest_tap, spacing


def find_truth(inputs: Inputs, dtype: str) -> Truth:
    """Run torchvision's operator on features and gradients rounded to `dtype`."""
    maps = [m.to(TYPES[dtype]).float().requires_grad_() for m in inputs.maps]
    given = [p.gradient.to(TYPES[dtype]).float() for p in inputs.poolings]
    holds = [(p.pooling, p.rows) for p in pieces_of(inputs)]
    outputs = operator(inputs, torch.device("cpu"))(maps)
    found = torch.autograd.grad(outputs, maps, [given[k][rows] for k, rows in holds])
    return Truth(
        _together([o.detach() for o in outputs], holds),
        list(found),
        max(float(m.detach().abs().max()) for m in maps),
        max(float(g.abs().max()) for g in found),
    )


def compare(
    contestant: Contestant, outputs: list[Tensor], gradients: list[Tensor], truth: Truth
) -> Difference:
    """How far what a contestant gave is from the truth; all on the truth's device."""
    found = _together([o.detach().float() for o in outputs], contestant.holds)
    backward = _largest([g.float() - t for g, t in zip(gradients, truth.gradients, strict=True)])
    return Difference(
        _largest([f - t for f, t in zip(found, truth.outputs, strict=True)]),
        backward / (truth.largest_gradient or 1.0),
        *limits(contestant.entry.dtype, truth.largest_tap),
    )


def touched_cells(inputs: Inputs) -> int:
    """How many cells of all maps lie under a sample: those that get a gradient when every output gets 1."""
    maps = [torch.zeros_like(m[:, :1]).requires_grad_() for m in inputs.maps]
    outputs = operator(inputs, torch.device("cpu"))(maps)
    found = torch.autograd.grad(outputs, maps, [torch.ones_like(o) for o in outputs])
    return sum(int((g != 0).sum()) for g in found)


def _together(outputs: list[Tensor], holds: list[tuple[int, Tensor]]) -> list[Tensor]:
    """The output of each pooling, from outputs that hold some of its RoIs."""
    found = []
    for k in range(1 + max(k for k, _ in holds)):
        pieces = [(o, rows) for o, (i, rows) in zip(outputs, holds, strict=True) if i == k]
        count = sum(len(rows) for _, rows in pieces)
        whole = pieces[0][0].new_full((count, *pieces[0][0].shape[1:]), math.nan)
        for piece, rows in pieces:
            whole[rows] = piece
        found.append(whole)
    return found


def _largest(differences: list[Tensor]) -> float:
    """Max |·| over all; NaN if any is."""
    return float(torch.stack([d.abs().max() for d in differences]).max())
