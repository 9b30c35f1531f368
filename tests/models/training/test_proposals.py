"""Proposals: only the best are decoded, and what a GPU does without waiting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torchvision.models.detection.image_list import ImageList

from segcli.models import MaskRCNN
from segcli.models.rpn import by_cell
from segcli.models.training import proposals
from segcli.models.training.proposals import propose

Make = Callable[..., MaskRCNN]
SIZES = [(96, 128), (70, 100)]


def _found(network: MaskRCNN) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    torch.manual_seed(2)
    shapes = [(24, 32), (12, 16), (6, 8), (3, 4), (2, 2)]
    logits = [torch.randn(2, 3, *shape) * 3 for shape in shapes]
    return logits, [torch.randn(2, 12, *shape) * 0.3 for shape in shapes]


@pytest.mark.parametrize("rank", ["logit_then_sigmoid", "logit", "sigmoid"])
def test_equal_to_the_networks_own(make_nano: Make, rank: str) -> None:
    """What its RPN gives after decoding every anchor, in each family's ranking."""
    network = make_nano(rpn_rank=rank)
    network.rpn._pre_nms_top_n = network.rpn._post_nms_top_n = {"training": 100, "testing": 9}
    logits, deltas = _found(network)
    anchors = network.rpn.anchor_generator.kept_per_level((96, 128), logits)
    numerics = network.spec.conventions.numerics
    found = propose(network.rpn, numerics, logits, deltas, anchors, SIZES)
    images = ImageList(torch.zeros(2, 3, 96, 128), SIZES)
    assert torch.equal(torch.cat(anchors), network.rpn.anchor_generator(images, logits)[0])
    every = torch.cat([by_cell(d, 4) for d in deltas], 1).view(-1, 4)
    decoded = network.rpn.box_coder.decode(every, [torch.cat(anchors)] * 2)
    flat = torch.cat([by_cell(level, 1) for level in logits], 1)
    counts = [level[0].numel() for level in logits]
    expected, _ = network.rpn.filter_proposals(decoded.view(2, -1, 4), flat, SIZES, counts)
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.equal(mine.boxes, theirs)
        assert mine.valid.all()
        assert len(theirs) > 20


def test_slots_hold_the_same(make_nano: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of a GPU, run on the CPU: the same boxes in the same order, empty slots at the end."""
    network = make_nano()
    network.rpn._pre_nms_top_n = {"training": 60, "testing": 9}
    network.rpn._post_nms_top_n = {"training": 200, "testing": 9}
    logits, deltas = _found(network)
    anchors = network.rpn.anchor_generator.kept_per_level((96, 128), logits)
    numerics = replace(network.spec.conventions.numerics, drop_non_finite=True)
    deltas[0][0, 0, 0, 0] = torch.inf
    logits[0][0, 0, 0, 0] = 50.0
    given = (network.rpn, numerics, logits, deltas, anchors, SIZES)
    expected = propose(*given)
    monkeypatch.setattr(proposals, "_as_many_as_there_are", proposals._in_slots)
    for mine, theirs in zip(propose(*given), expected, strict=True):
        count = len(theirs.boxes)
        assert mine.valid.tolist() == [True] * count + [False] * (len(mine.valid) - count)
        assert torch.equal(mine.boxes[:count], theirs.boxes)
