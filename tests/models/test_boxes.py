"""Box arithmetic on inputs made so that each family's choice shows; references are the families' formulas in fp64."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import batched_nms as torchvision_nms

from segcli.models.boxes import DeltaCoder, batched_nms, clipped, wide_enough
from segcli.models.conventions import NmsMode, Numerics
from segcli.models.presets import PRESETS

TORCHVISION = PRESETS["torchvision-v1"].numerics
DETECTRON2 = PRESETS["detectron2-r50"].numerics
MMDETECTION = PRESETS["mmdetection-pytorch"].numerics


def _boxes(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 4, generator=generator) * 600
    corners[:, 2:] = corners[:, :2] + 1 + corners[:, 2:] / 3
    return corners


def _in_float64(deltas: Tensor, boxes: Tensor, scales: tuple[float, ...]) -> np.ndarray:
    """Ren et al. 2015, equation 2, solved for the box; limits on dw, dh aside."""
    d, b = (
        deltas.double().numpy().reshape(len(deltas), -1, 4) * np.array(scales),
        boxes.double().numpy(),
    )
    size = (b[:, 2:] - b[:, :2])[:, None]
    centre = (b[:, :2] + b[:, 2:])[:, None] / 2 + d[..., :2] * size
    half = np.exp(d[..., 2:]) * size / 2
    return np.concatenate((centre - half, centre + half), -1).reshape(len(deltas), -1)


@pytest.mark.parametrize("numerics", [TORCHVISION, DETECTRON2, MMDETECTION])
@pytest.mark.parametrize("scaled", [True, False])
def test_decoding_is_right(numerics: Numerics, scaled: bool) -> None:
    """Against fp64, within a few roundings."""
    deltas = torch.randn(500, 12, generator=torch.Generator().manual_seed(1))
    scales = (0.1, 0.1, 0.2, 0.2) if scaled else (1.0,) * 4
    found = DeltaCoder(numerics, scaled=scaled).decode_single(deltas, _boxes(500))
    expected = _in_float64(deltas, _boxes(500), scales)
    assert np.allclose(found.numpy(), expected, rtol=1e-6, atol=2e-3)


@pytest.mark.parametrize("scaled", [True, False])
def test_torchvisions_and_detectron2s_decoding_is_torchvisions_to_the_bit(scaled: bool) -> None:
    """Their formulas are one."""
    stock = BoxCoder((10.0, 10.0, 5.0, 5.0) if scaled else (1.0, 1.0, 1.0, 1.0))
    deltas = torch.randn(300, 8, generator=torch.Generator().manual_seed(2)) * 4
    for numerics in (TORCHVISION, DETECTRON2):
        found = DeltaCoder(numerics, scaled=scaled).decode_single(deltas, _boxes(300))
        assert torch.equal(found, stock.decode_single(deltas, _boxes(300)))


def test_mmdetections_decoding_to_the_bit() -> None:
    """Its formula (delta_xywh_bbox_coder.py, `delta2bbox`) written with its own arrangement of axes."""
    deltas, rois = torch.randn(300, 8, generator=torch.Generator().manual_seed(3)) * 9, _boxes(300)
    moved = deltas.reshape(-1, 4) * torch.tensor([0.1, 0.1, 0.2, 0.2])
    repeated = rois.repeat(1, 2).reshape(-1, 4)
    centre = (repeated[:, :2] + repeated[:, 2:]) * 0.5
    size = repeated[:, 2:] - repeated[:, :2]
    limit = abs(math.log(16 / 1000))
    new = centre + size * moved[:, :2]
    half = size * moved[:, 2:].clamp(min=-limit, max=limit).exp() * 0.5
    expected = torch.cat((new - half, new + half), -1).reshape(300, 8)
    assert torch.equal(DeltaCoder(MMDETECTION, scaled=True).decode_single(deltas, rois), expected)


def test_only_mmdetection_limits_how_much_a_box_shrinks() -> None:
    """All limit its growth to 1000 / 16."""
    box = torch.tensor([[0.0, 0.0, 1000.0, 1000.0]])
    for numerics, shrunk in ((TORCHVISION, 0.0), (DETECTRON2, 0.0), (MMDETECTION, 16.0)):
        coder = DeltaCoder(numerics, scaled=False)
        small = coder.decode_single(torch.tensor([[0.0, 0.0, -80.0, -80.0]]), box)
        large = coder.decode_single(torch.tensor([[0.0, 0.0, 80.0, 80.0]]), box)
        assert (small[0, 2] - small[0, 0]).item() == pytest.approx(shrunk, abs=1e-3)
        assert (large[0, 2] - large[0, 0]).item() == pytest.approx(1000 * 1000 / 16, rel=1e-5)


def test_a_tenth_is_not_a_division_by_ten() -> None:
    """The last bit of a fifth of all values; the reason why the form is kept."""
    plain = replace(TORCHVISION, delta_form="multiply_stds")
    deltas = torch.randn(4000, 4, generator=torch.Generator().manual_seed(4))
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(4000, 4)
    divided, multiplied = (
        DeltaCoder(n, scaled=True).decode_single(deltas, boxes) for n in (TORCHVISION, plain)
    )
    share = (divided[:, 0] != multiplied[:, 0]).float().mean().item()
    assert 0.02 < share < 0.5
    assert torch.allclose(divided, multiplied, atol=1e-5)


def test_no_boxes_decode_to_none() -> None:
    """Empty input has an empty result of the same width."""
    found = DeltaCoder(MMDETECTION, scaled=True).decode_single(torch.zeros(0, 8), torch.zeros(0, 4))
    assert found.shape == (0, 8)
    assert clipped(torch.zeros(0, 4), (5, 5)).shape == (0, 4)


def test_small_boxes_at_the_edge_of_small() -> None:
    """Exactly the limit is kept by `>=` only; NaN and turned boxes never."""
    boxes = torch.tensor([
        [0.0, 0, 1, 1], [0, 0, 1, 0.5], [0, 0, 1.5, 1], [0, 0, -2, 3], [0, 0, float("nan"), 9],
    ])  # fmt: skip
    assert wide_enough(boxes, 1.0).tolist() == [True, False, True, False, False]
    assert wide_enough(boxes, 1.0, inclusive=False).tolist() == [False] * 5
    assert wide_enough(boxes, 0.0, inclusive=False).tolist() == [True, True, True, False, False]


MODES: list[NmsMode] = ["per_class", "by_size", "offset"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("count", [0, 1, 300, 1200])
def test_all_modes_of_nms_keep_the_same_of_ordinary_boxes(mode: NmsMode, count: int) -> None:
    """Against a plain loop over classes in fp64."""
    boxes, generator = _boxes(count, 5), torch.Generator().manual_seed(6)
    scores, groups = torch.rand(count, generator=generator), torch.arange(count) % 3
    found = batched_nms(boxes, scores, groups, 0.5, mode)
    assert found.tolist() == _plain_nms(boxes, scores, groups, 0.5)


def _plain_nms(boxes: Tensor, scores: Tensor, groups: Tensor, overlap: float) -> list[int]:
    b, group = boxes.double().numpy(), groups.numpy()
    area = (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    kept: list[int] = []
    for i in np.argsort(-scores.numpy(), kind="stable").tolist():
        inside = (
            (np.minimum(b[kept, 2:], b[i, 2:]) - np.maximum(b[kept, :2], b[i, :2])).clip(0).prod(1)
        )
        removes = inside / (area[kept] + area[i] - inside) > overlap
        if not (removes & (group[kept] == group[i])).any():
            kept.append(i)
    return kept


def _close_pair(limit: float) -> Tensor:
    """Two boxes whose overlap is a little below one half, and a third that makes offsets large."""
    return torch.tensor(
        [[100.0, 100, 110, 110], [100.0, 100, 110, 120 + limit], [0.0, 0, 1333, 1333]]
    )


def test_offsets_beyond_a_hundred_thousand_round_boxes() -> None:
    """At class 79 of 1333 pixels coordinates step by 1/128: an overlap just below the limit passes it."""
    boxes = _close_pair(0.003)
    scores, groups = torch.tensor([0.9, 0.8, 0.1]), torch.tensor([79, 79, 0])
    exact = 100 / (100 + 200.03 - 100)
    # 120.003 + 79 · 1334 is rounded to a step of 1/128: the overlap becomes exactly 1/2
    assert batched_nms(boxes, scores, groups, (0.5 + exact) / 2, "per_class").tolist() == [0, 1, 2]
    assert batched_nms(boxes, scores, groups, (0.5 + exact) / 2, "offset").tolist() == [0, 2]
    assert batched_nms(boxes, scores, groups, (0.5 + exact) / 2, "by_size").tolist() == [0, 2]


def test_many_boxes_are_kept_apart_without_offsets() -> None:
    """The limit of mmcv is 10,000 boxes, torchvision's on a CPU 1000; each mode is exact beyond its own."""
    pair = _close_pair(0.003)
    exact = 100 / (100 + 200.03 - 100)
    for mode, count in (("offset", 10_000), ("by_size", 1001)):
        far = torch.arange(count - 3)
        others = torch.stack((far * 0.1, far * 0 + 900.0, far * 0.1 + 0.05, far * 0 + 900.05), 1)
        boxes = torch.cat((pair, others))
        scores = torch.cat((torch.tensor([0.9, 0.8, 0.1]), torch.full((count - 3,), 0.05)))
        groups = torch.cat((torch.tensor([79, 79, 0]), torch.ones(count - 3, dtype=torch.int64)))
        kept = batched_nms(boxes, scores, groups, (0.5 + exact) / 2, mode)  # type: ignore[arg-type]
        assert kept[:2].tolist() == [0, 1]
        fewer = batched_nms(boxes[:-1], scores[:-1], groups[:-1], (0.5 + exact) / 2, mode)  # type: ignore[arg-type]
        assert 1 not in fewer.tolist()


@pytest.mark.parametrize("count", [50, 1000, 1001])
def test_by_size_is_torchvisions_own(count: int) -> None:
    """On both sides of its limit."""
    boxes, scores = _boxes(count, 7), torch.rand(count, generator=torch.Generator().manual_seed(8))
    groups = torch.arange(count) % 91
    expected = torchvision_nms(boxes, scores, groups, 0.5)
    assert torch.equal(batched_nms(boxes, scores, groups, 0.5, "by_size"), expected)


@pytest.mark.parametrize("mode", ["per_class", "offset"])
def test_equal_scores_stay_in_order(mode: NmsMode) -> None:
    """Saturated scores tie; the first of them wins."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [50, 50, 60, 60], [0, 0, 10, 10]])
    kept = batched_nms(boxes, torch.ones(4), torch.tensor([0, 0, 0, 1]), 0.5, mode)
    assert kept.tolist() == [0, 2, 3]
