"""Boxes and features of the workloads."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from segcli.bench.figures import needed_bytes
from segcli.bench.inputs import make_boxes, make_inputs
from segcli.bench.peers import pieces_of
from segcli.bench.workloads import FULL, QUICK, WORKLOADS, Boxes

SIZE = (800, 1344)


def boxes(kind: Boxes, count: int = 1000) -> torch.Tensor:
    """Boxes of one kind, seeded."""
    return make_boxes(kind, count, SIZE, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", ["proposals", "objects", "small", "identical"])
def test_boxes_lie_in_the_picture(kind: Boxes) -> None:
    """Each has sides of a pixel or more, inside the picture; the same seed gives the same boxes."""
    found = boxes(kind)

    assert found.dtype == torch.float32
    assert found.shape == (1000, 4)
    assert bool((found >= 0).all())
    assert bool((found[:, 2] <= SIZE[1]).all())
    assert bool((found[:, 3] <= SIZE[0]).all())
    assert bool((found[:, 2:] - found[:, :2] >= 1).all())
    assert torch.equal(found, boxes(kind))


def test_identical_boxes_are_one() -> None:
    """The worst case for a backward: everything on one place."""
    assert len(boxes("identical").unique(dim=0)) == 1


def test_proposals_are_spread_over_sizes_and_levels() -> None:
    """Log-normal sizes: each of the four levels gets some, the finest most."""
    inputs = make_inputs(WORKLOADS["box"], replace(FULL, channels=1))
    counts = [len(p.rows) for p in pieces_of(inputs)]

    assert sum(counts) == 1000
    assert min(counts) > 0
    assert counts[0] == max(counts)


def test_proposals_are_clustered() -> None:
    """Many of them overlap another by half, as proposals of a trained network do; small boxes anywhere do not."""
    from torchvision.ops import box_iou

    def crowded(found: torch.Tensor) -> float:
        overlaps = box_iou(found, found).fill_diagonal_(0)
        return float((overlaps.amax(1) > 0.5).float().mean())

    assert crowded(boxes("objects")) > 0.9
    assert crowded(boxes("small")) < 0.8


def test_small_boxes_are_all_on_p2() -> None:
    """The worst case for the caches: everything on the largest map."""
    inputs = make_inputs(WORKLOADS["worst-small"], replace(FULL, channels=1))

    assert [len(p.rows) for p in pieces_of(inputs)] == [1024, 0, 0, 0]


@pytest.mark.parametrize("name", WORKLOADS)
def test_inputs_fit_together(name: str) -> None:
    """Maps, boxes and gradient have the shapes that the workload says; RoIs are grouped by picture."""
    workload = WORKLOADS[name]
    inputs = make_inputs(workload, QUICK)

    assert len(inputs.maps) == len(inputs.strides) == workload.levels
    for m, stride in zip(inputs.maps, inputs.strides, strict=True):
        size = (QUICK.height // stride, QUICK.width // stride)
        assert m.shape == (workload.pictures, QUICK.channels, *size)
    for head, pooling in zip(workload.heads, inputs.poolings, strict=True):
        count = workload.pictures * head.count(QUICK)
        by_picture = pooling.boxes_by_picture(workload.pictures)
        assert pooling.rois.shape == (count, 5)
        assert pooling.gradient.shape == (count, QUICK.channels, head.bins, head.bins)
        assert torch.equal(torch.cat(by_picture), pooling.rois[:, 1:])  # grouped
        assert [len(boxes) for boxes in by_picture] == [head.count(QUICK)] * workload.pictures


def test_needed_bytes_of_the_standard_box_head() -> None:
    """Touched cells, boxes and output; a backward writes all four maps whole, however few cells are touched."""
    workload = WORKLOADS["box"]
    thin = make_inputs(workload, replace(FULL, channels=1))
    boxes_read = 1000 * 5 * 4
    output, maps = 1000 * 49, 89_250

    assert needed_bytes(thin, 10, "forward", "fp32") == (10 + output) * 4 + boxes_read
    assert needed_bytes(thin, 10, "forward", "bf16") == (10 + output) * 2 + boxes_read
    assert needed_bytes(thin, 10, "backward", "fp32") == (maps + output) * 4 + boxes_read
    assert needed_bytes(thin, 10, "forward+backward", "fp16") == sum(
        needed_bytes(thin, 10, part, "fp16") for part in ("forward", "backward")
    )
