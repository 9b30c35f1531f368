"""The forward kernel against the reference: every option, awkward sizes, boxes that no detector should make."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("triton", reason="Triton is only for Linux")

import torch
from torch import Tensor

from segcli.models.conventions import LevelRule
from segcli.models.roi_align.forward_kernel import forward
from segcli.models.roi_align.levels import area_thresholds, assign_levels
from segcli.models.roi_align.reference import _bilinear, _samples, roi_align_reference
from segcli.models.roi_align.sampling import Mode, Sampling

NAN, INF = math.nan, math.inf
SCALES = (1 / 4, 1 / 8, 1 / 16, 1 / 32)
BOXES = {
    "inside": (0, 3.0, 4.0, 30.0, 28.0),
    "over the edge": (1, -20.0, -9.0, 12.0, 50.0),
    "no area": (1, 10.0, 10.0, 10.0, 10.0),
    "at the last cell": (0, 51.5, 43.5, 52.0, 44.0),
    "wholly outside": (0, 200.0, 200.0, 240.0, 230.0),
    "inside out": (0, 30.0, 28.0, 3.0, 4.0),
    "x is NaN": (0, NAN, 0.0, 9.0, 9.0),
    "infinite": (0, 0.0, 0.0, INF, 9.0),
}
EVERY_BOX = torch.tensor(list(BOXES.values()))
FEW = EVERY_BOX[:2]


def random_map(channels: int, height: int = 11, width: int = 13, pictures: int = 2) -> Tensor:
    """Features (N, C, H, W), float32, seeded."""
    generator = torch.Generator().manual_seed(channels)
    return torch.randn(pictures, channels, height, width, generator=generator)


def by_kernel(
    device: str, maps: list[Tensor], rois: Tensor, size: tuple[int, int], sampling: Sampling
) -> Tensor:
    """What the kernel makes of (N, C, H, W) maps, (R, C, h, w) on the CPU."""
    channels_last = [m.to(device).permute(0, 2, 3, 1).contiguous() for m in maps]
    out = forward(channels_last, rois.to(device), size, sampling)
    assert out.shape == (len(rois), *size, maps[0].shape[1])
    assert out.dtype == maps[0].dtype
    return out.permute(0, 3, 1, 2).cpu()


def by_reference(
    features: Tensor, rois: Tensor, size: tuple[int, int], sampling: Sampling
) -> Tensor:
    """Float64 (R, C, h, w) of one level."""
    return roi_align_reference(
        features.double(), rois, size, sampling.scales[0],
        sampling_ratio=sampling.ratio, aligned=sampling.aligned, mode=sampling.mode,
    )  # fmt: skip


def check(
    device: str, features: Tensor, rois: Tensor, size: tuple[int, int], sampling: Sampling
) -> None:
    """Within 1e-5 of the reference."""
    found = by_kernel(device, [features], rois, size, sampling)
    expected = by_reference(features, rois, size, sampling)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)


def test_no_rois(device: str) -> None:
    """No RoIs give no rows, and nothing is launched."""
    found = by_kernel(device, [random_map(5)], EVERY_BOX[:0], (2, 3), Sampling((0.25,)))
    assert found.shape == (0, 5, 2, 3)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("ratio", [0, 2])
def test_padding_rows_are_zero(device: str, ratio: int, mode: Mode) -> None:
    """A picture index that is negative, beyond the last, or NaN gives zeros, even where all features are infinite."""
    rois = torch.tensor([[i, 0.0, 0.0, 9.0, 9.0] for i in (-1, 2, NAN, 1e9, -INF)])
    features = torch.full((2, 5, 4, 4), INF)
    found = by_kernel(device, [features], rois, (2, 3), Sampling((0.25,), (), ratio, mode=mode))
    assert torch.equal(found, torch.zeros(5, 5, 2, 3))


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("aligned", [False, True], ids=["legacy", "aligned"])
@pytest.mark.parametrize("ratio", [0, 1, 2, 3], ids=lambda ratio: f"samples{ratio}")
def test_every_box_with_every_option(device: str, ratio: int, aligned: bool, mode: Mode) -> None:
    """Boxes inside, outside, degenerate and not finite, in all modes."""
    check(device, random_map(5), EVERY_BOX, (2, 3), Sampling((0.25,), (), ratio, aligned, mode))


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("ratio", [0, 2], ids=lambda ratio: f"samples{ratio}")
@pytest.mark.parametrize("size", [(1, 1), (2, 11), (7, 7)], ids=lambda s: f"{s[0]}x{s[1]}")
def test_sizes(device: str, size: tuple[int, int], ratio: int, mode: Mode) -> None:
    """One bin; a row of more bins than a block; the box head's."""
    check(device, random_map(3), FEW, size, Sampling((0.25,), (), ratio, mode=mode))


@pytest.mark.parametrize("channels", [1, 8, 20, 300])
def test_channels(device: str, channels: int) -> None:
    """One channel, a whole block, part of a block, and more than a block."""
    check(device, random_map(channels), FEW, (2, 3), Sampling((0.25,)))


@pytest.mark.parametrize("aligned", [False, True], ids=["legacy", "aligned"])
@pytest.mark.parametrize("ratio", [0, 2], ids=lambda ratio: f"samples{ratio}")
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1)], ids=lambda s: f"{s[0]}x{s[1]}")
def test_maps_of_one_pixel(device: str, shape: tuple[int, int], ratio: int, aligned: bool) -> None:
    """The cell to the right of the only one is itself."""
    features = random_map(2, *shape)
    rois = torch.tensor([[0, 0.0, 0.0, 4.0, 4.0], [1, -3.0, -2.0, 20.0, 9.0]])
    check(device, features, rois, (2, 2), Sampling((0.25,), (), ratio, aligned))


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_a_map_without_cells(device: str, shape: tuple[int, int], mode: Mode) -> None:
    """Nothing is read, and the row is zero."""
    features = torch.zeros(1, 2, *shape)
    rois = torch.tensor([[0, 0.0, 0.0, 8.0, 8.0]])
    found = by_kernel(device, [features], rois, (1, 2), Sampling((0.25,), mode=mode))
    assert torch.equal(found, torch.zeros(1, 2, 1, 2))


def test_a_level_without_cells_or_rois(device: str) -> None:
    """Levels that no box belongs to are never read; the others are pooled as if alone."""
    maps = [random_map(3), torch.zeros(2, 3, 0, 0), torch.full((2, 3, 3, 4), NAN)]
    sampling = Sampling(SCALES[:3], area_thresholds(2, 4, "torchvision"))
    found = by_kernel(device, maps, FEW, (2, 2), sampling)
    expected = by_reference(maps[0], FEW, (2, 2), sampling)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_nan_and_infinity_in_the_features_stay_where_they_are(device: str, mode: Mode) -> None:
    """A bin is NaN exactly where the reference is: a sample between two infinities is NaN, others are not touched."""
    features = random_map(2)
    features[0, 0, 3, 4], features[0, 1, 5, 2] = NAN, INF
    sampling = Sampling((0.25,), (), 2, False, mode)
    found = by_kernel(device, [features], EVERY_BOX[:1], (2, 3), sampling)
    expected = by_reference(features, EVERY_BOX[:1], (2, 3), sampling)
    assert expected.isnan().any()
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0, equal_nan=True)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("side", [3e3, 1e5, 1e6, 1e7])
def test_unclipped_boxes(device: str, side: float, mode: Mode) -> None:
    """An adaptive bin of 250,000 samples a side, of which a few are on the map, is pooled as defined."""
    # so large that the average over all samples is not nothing
    features = random_map(2, 5, 6, 1) * (side**2 if mode == "avg" else 1.0)
    box = torch.tensor([0, -side, -side / 2 - 7, side / 2 + 9, side])
    sampling = Sampling((0.25,), (), 0, mode=mode)
    found = by_kernel(device, [features], box[None], (1, 2), sampling)
    expected = _pooled_where_it_is_on_the_map(features[0], box, (1, 2), mode)
    assert expected.amax() > 0.1
    torch.testing.assert_close(found[0].double(), expected, atol=1e-5, rtol=1e-5)


def _pooled_where_it_is_on_the_map(
    plane: Tensor, box: Tensor, size: tuple[int, int], mode: Mode
) -> Tensor:
    """The reference for huge adaptive boxes, scale ¼: samples outside are counted and not made; float64 (C, h, w)."""
    ys = _samples(box[2], box[4], size[0], 0.25, 0, False)
    xs = _samples(box[1], box[3], size[1], 0.25, 0, False)
    out, seen = torch.zeros(plane.shape[0], *size, dtype=torch.float64), 0
    for i, j in ((i, j) for i in range(size[0]) for j in range(size[1])):
        y, x = _on_the_map(ys[i], plane.shape[1]), _on_the_map(xs[j], plane.shape[2])
        values = _bilinear(plane.double(), y, x).flatten(1)
        seen += values.shape[1]
        if mode == "avg":
            out[:, i, j] = values.sum(1) / (ys.shape[1] * xs.shape[1])
        elif values.shape[1] > 0:
            out[:, i, j] = values.amax(1).clamp(min=0.0)
    assert seen > 0
    return out


def _on_the_map(at: Tensor, size: int) -> Tensor:
    return at[(at >= -1) & (at <= size)]


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("side", [1e9, 1e30, 3e38])
def test_absurd_boxes_end(device: str, side: float, ratio: int, mode: Mode) -> None:
    """A box of a billion pixels takes no longer than one of the map's size; nearly all of it is outside, so zero."""
    features = -random_map(2, 5, 6, 1).abs()
    rois = torch.tensor([[0, -side, -side, side, side]])
    found = by_kernel(device, [features], rois, (1, 2), Sampling((0.25,), (), ratio, mode=mode))
    torch.testing.assert_close(found, torch.zeros_like(found), atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
@pytest.mark.parametrize("mode", ["avg", "max"])
def test_16_bits(device: str, mode: Mode, dtype: torch.dtype) -> None:
    """Within one unit in the last place of max(|out|, 2⁻⁸ · max|tap|): sums and coordinates are float32."""
    features = random_map(20).to(dtype)
    rois = torch.cat((EVERY_BOX[:4], torch.tensor([[0, 40.3, 30.2, 52.7, 43.9]])))
    sampling = Sampling((0.25,), mode=mode)
    found = by_kernel(device, [features], rois, (2, 3), sampling).double()
    expected = by_reference(features, rois, (2, 3), sampling)
    # no more than the largest tap, so the bound is no looser than stated
    taps = by_reference(features.abs(), rois, (2, 3), Sampling((0.25,), mode="max"))
    ulp = _ulp(torch.maximum(expected.abs(), taps / 256), dtype)
    assert ((found - expected).abs() <= ulp).all()


def _ulp(size: Tensor, dtype: torch.dtype) -> Tensor:
    """Distance between neighbours of `dtype` at each size; float64."""
    number = torch.finfo(dtype)
    exponent = torch.floor(torch.log2(size.clamp(min=number.tiny)))
    return torch.exp2(exponent) * number.eps


@pytest.mark.parametrize("rule", ["torchvision", "detectron2", "mmdetection"])
def test_levels_at_every_boundary(device: str, rule: LevelRule) -> None:
    """Boxes whose area is a boundary ± 3 units in the last place go to the level that the family's formula gives."""
    thresholds = area_thresholds(2, 5, rule)
    areas = torch.tensor(thresholds).view(torch.int32)[:, None] + torch.arange(-3, 4)
    width = areas.view(torch.float32).reshape(-1) / 128  # exact, so the area is what was meant
    rois = torch.zeros(len(width) + 2, 5)
    rois[:-2, 3], rois[:-2, 4] = width, 128.0
    rois[-2] = torch.tensor([0, 500.0, 400.0, 0.0, 0.0])  # inside out twice: the area is positive
    rois[-1] = torch.tensor([0, 8.0, 8.0, -3e38, -3e38])  # likewise infinite
    maps = [torch.full((1, 1, 2048 // s, 2048 // s), float(s)) for s in (4, 8, 16, 32)]
    found = by_kernel(device, maps, rois, (1, 1), Sampling(SCALES, thresholds, 1))
    expected = assign_levels(rois[:, 1:], 2, 5, rule)
    assert len(expected[:-2].unique()) == 4
    assert found.flatten().tolist() == (4 * 2**expected).tolist()
