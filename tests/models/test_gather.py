"""The CPU's RoIAlign by gathered rows, against the reference and torchvision's operator."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import roi_align as torchvision_roi_align

from segcli.models.conventions import LevelRule
from segcli.models.roi_align import roi_align, roi_align_pyramid, roi_align_pyramid_shared
from segcli.models.roi_align.reference import _samples, _taps
from segcli.models.roi_align.sampling import Sampling
from segcli.models.roi_align.taps import taps_of

NAN, INF = float("nan"), float("inf")
BOXES = {
    "inside": [0, 3.0, 4.0, 30.0, 28.0],
    "outside at three sides": [1, -20.0, -9.0, 12.0, 60.0],
    "no area": [1, 10.0, 10.0, 10.0, 10.0],
    "at the last cell": [0, 51.5, 43.5, 52.0, 44.0],
    "wholly outside": [0, 200.0, 200.0, 240.0, 230.0],
    "the whole picture": [1, 0.0, 0.0, 52.0, 44.0],
    "turned inside out": [0, 30.0, 28.0, 3.0, 4.0],
    "turned in x only": [0, 30.0, 4.0, 3.0, 28.0],
    "far over the edges": [1, -150.0, -200.0, 300.0, 140.0],
    "under a cell": [0, 20.1, 20.2, 21.3, 21.1],
    "not a number": [0, NAN, 0.0, 9.0, 9.0],
    "endless": [0, 0.0, 0.0, INF, 9.0],
}
ROIS = torch.tensor(list(BOXES.values()))
SCALES = (1 / 4, 1 / 8, 1 / 16, 1 / 32)


def _features(channels: int = 5, height: int = 11, width: int = 13, pictures: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(pictures, channels, height, width, generator=generator)


def _pyramid(channels: int = 3, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    maps = [
        torch.randn(2, channels, 256 // s, 320 // s, generator=generator) for s in (4, 8, 16, 32)
    ]
    return [m.to(dtype) for m in maps]


def _boxes(count: int, largest: float = 300.0) -> Tensor:
    """Proposals of all sizes in two pictures, in no order."""
    generator = torch.Generator().manual_seed(2)
    corner = torch.rand(count, 2, generator=generator) * 200
    side = torch.exp(torch.rand(count, 2, generator=generator) * math.log(largest))
    picture = torch.randint(0, 2, (count, 1), generator=generator)
    return torch.cat((picture, corner, corner + side), 1)


@pytest.mark.parametrize("aligned", [False, True], ids=["legacy", "aligned"])
@pytest.mark.parametrize("ratio", [0, 1, 2, 3, 5], ids=lambda s: f"samples{s}")
@pytest.mark.parametrize("size", [(1, 1), (7, 7), (3, 5)], ids=lambda s: f"{s[0]}x{s[1]}")
def test_it_equals_the_reference(aligned: bool, ratio: int, size: tuple[int, int]) -> None:
    """Output and gradient, for every kind of box and every option."""
    results = []
    for backend in ("reference", "gather"):
        features = _features().requires_grad_()
        pooled = roi_align(
            features, ROIS, size, 0.25, sampling_ratio=ratio, aligned=aligned, backend=backend
        )
        weight = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(3))
        (gradient,) = torch.autograd.grad(pooled, features, weight)
        results.append((pooled.detach(), gradient))
    (expected, slope), (found, ours) = results
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert (ours - slope).abs().max() <= 1e-4 * slope.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_types(dtype: torch.dtype) -> None:
    """The features' type comes back; 16-bit weights cost at most 2⁻⁷ of the largest value that is read."""
    features = _features().to(dtype)
    found = roi_align(features, ROIS, (7, 7), 0.25, sampling_ratio=2, backend="gather")
    exact = roi_align(features.double(), ROIS, (7, 7), 0.25, sampling_ratio=2, backend="reference")
    assert found.dtype == dtype
    bound = {torch.bfloat16: 2**-7, torch.float16: 2**-10}.get(dtype, 1e-6) * features.abs().max()
    assert (found.double() - exact).abs().max() <= bound


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_gradients(dtype: torch.dtype) -> None:
    """In 16 bits the gradient has the features' type and is off by what rounding the weights costs."""
    gradients = []
    for backend, kind in (("reference", torch.float32), ("gather", dtype)):
        maps = [m.requires_grad_() for m in _pyramid(dtype=kind)]
        pooled = roi_align_pyramid(
            maps, _boxes(40), (7, 7), SCALES, level_rule="torchvision", backend=backend
        )
        weight = torch.ones(pooled.shape, dtype=kind)
        gradients.append(
            [g.float() for g in torch.autograd.grad(pooled, maps, weight, materialize_grads=True)]
        )
        assert all(m.dtype == kind for m in maps)
    for expected, found in zip(*gradients, strict=True):
        assert (found - expected).abs().max() <= 2**-7 * expected.abs().max()


def test_no_rois_and_empty_levels() -> None:
    """No RoIs give no rows and a gradient of zeros; a level on which no RoI lies gets zeros; a map may be empty."""
    maps = [m.requires_grad_() for m in _pyramid()]
    none = roi_align_pyramid(
        maps, torch.zeros(0, 5), (7, 7), SCALES, level_rule="torchvision", backend="gather"
    )
    assert none.shape == (0, 3, 7, 7)
    assert all(not g.any() for g in torch.autograd.grad(none.sum(), maps))
    small = torch.tensor([[0, 4.0, 4, 40, 60]])
    pooled = roi_align_pyramid(
        maps, small, (7, 7), SCALES, level_rule="torchvision", backend="gather"
    )
    touched = [bool(g.any()) for g in torch.autograd.grad(pooled.sum(), maps)]
    assert touched == [True, False, False, False]
    empty = roi_align(torch.zeros(1, 3, 0, 5), small, (2, 2), 0.25, backend="gather")
    assert torch.equal(empty, torch.zeros(1, 3, 2, 2))


def test_padding_rows_do_not_read() -> None:
    """Index −1, one past the last picture and NaN give zeros, also where every feature is infinite."""
    rois = torch.tensor([[-1.0, 0, 0, 9, 9], [2, 0, 0, 9, 9], [NAN, 0, 0, 9, 9], [1, 0, 0, 9, 9]])
    features = torch.full((2, 3, 8, 8), INF)
    features[1] = 1.0
    found = roi_align(features, rois, (2, 2), 0.25, backend="gather")
    assert torch.all(found[:3] == 0)
    assert torch.all(found[3] == 1)


@pytest.mark.parametrize("side", [3e3, 1e5, 1e6])
def test_unclipped_boxes(side: float) -> None:
    """An adaptive bin of up to 250,000 samples a side, a few of them on the map, is pooled as defined."""
    # separable features: the mean over all samples is the product of the means along the axes, in closed form
    column, row = torch.arange(1.0, 6), torch.arange(2.0, 8)
    features = (column[:, None] * row[None, :])[None, None]
    box = torch.tensor([0, -side, -side / 2 - 7, side / 2 + 9, side])
    found = roi_align(features, box[None], (1, 1), 0.25, sampling_ratio=0, backend="gather")
    means = []
    for values, low, high in ((column, box[2], box[4]), (row, box[1], box[3])):
        at = _samples(low, high, 1, 0.25, 0, False)[0]
        below, above, weight, counts = _taps(at, len(values))
        along = values[below] * (1 - weight) + values[above] * weight
        means.append(torch.where(counts, along, 0.0).double().mean())
    expected = means[0] * means[1]
    assert expected > 0
    torch.testing.assert_close(found.double().squeeze(), expected, atol=0, rtol=1e-5)


@pytest.mark.parametrize("side", [1e9, 1e30])
def test_boxes_beyond_all_measure_end(side: float) -> None:
    """Their samples are further apart than a float can tell; they end, and next to nothing is left of the map."""
    rois = torch.tensor([[0, -side, -side, side, side]])
    found = roi_align(
        torch.ones(1, 2, 11, 13), rois, (1, 1), 0.25, sampling_ratio=0, backend="gather"
    )
    assert found.abs().max() < 1e-6


def test_memory_is_bounded_by_pieces() -> None:
    """Bins that read a whole map come in pieces of a few RoIs, not all at once."""
    rois = torch.tensor([[0, 0.0, 0.0, 400.0, 400.0]]).repeat(50, 1)
    sampling = Sampling((0.25,), (), 0)
    pieces = list(taps_of([(1, 100, 100, 4)], rois, (1, 1), sampling, 1000))
    assert len(pieces) > 5
    assert max(piece.cells.numel() for piece in pieces) <= 1 << 16
    assert sorted(torch.cat([piece.rois for piece in pieces]).tolist()) == list(range(50))


@pytest.mark.parametrize("rule", ["torchvision", "detectron2", "mmdetection"])
@pytest.mark.parametrize("ratio", [0, 2])
def test_a_pyramid_of_many_boxes(rule: LevelRule, ratio: int) -> None:
    """All levels at once equal torchvision's operator level by level, values and gradients."""
    results = []
    for backend in ("torchvision", "gather"):
        maps = [m.requires_grad_() for m in _pyramid()]
        pooled = roi_align_pyramid(
            maps, _boxes(200), (7, 7), SCALES,
            level_rule=rule, sampling_ratio=ratio, aligned=True, backend=backend,
        )  # fmt: skip
        gradients = torch.autograd.grad((pooled * pooled).sum(), maps)
        results.append((pooled.detach(), gradients))
    torch.testing.assert_close(results[1][0], results[0][0], atol=1e-5, rtol=0)
    for ours, theirs in zip(results[1][1], results[0][1], strict=True):
        assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


@pytest.mark.parametrize("backend", ["gather", "torchvision", "reference"])
@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 0, 4, 4), (2, 3, 0, 4)], ids=str)
def test_features_without_a_value(backend: str, shape: tuple[int, ...]) -> None:
    """No pictures, no channels or no cells: zeros or nothing, and a gradient of that shape."""
    features = torch.zeros(shape, requires_grad=True)
    pooled = roi_align(features, ROIS[:2], (2, 2), 0.25, backend=backend)
    assert torch.equal(pooled, torch.zeros(2, shape[1], 2, 2))
    (gradient,) = torch.autograd.grad(pooled.sum(), features)
    assert gradient.shape == shape


def test_two_poolings_share_a_gradient() -> None:
    """Box and mask pooling at once equal two calls, whose gradients autograd adds."""
    boxes, objects = _boxes(60), _boxes(12)
    results = []
    for together in (True, False):
        maps = [m.requires_grad_() for m in _pyramid()]
        if together:
            pooled = roi_align_pyramid_shared(
                maps, [boxes, objects], [(7, 7), (14, 14)], SCALES,
                level_rule="torchvision", backend="gather",
            )  # fmt: skip
        else:
            pooled = [
                roi_align_pyramid(maps, r, s, SCALES, level_rule="torchvision", backend="gather")
                for r, s in ((boxes, (7, 7)), (objects, (14, 14)))
            ]
        loss = pooled[0].square().sum() + pooled[1].sum()
        results.append(([p.detach() for p in pooled], torch.autograd.grad(loss, maps)))
    for ours, theirs in zip(results[0][0], results[1][0], strict=True):
        assert torch.equal(ours, theirs)
    for ours, theirs in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-5)


def test_a_pooling_that_is_not_used_has_no_share() -> None:
    """Where only one of two poolings reaches the loss, its gradient comes alone."""
    maps = [m.requires_grad_() for m in _pyramid()]
    pooled = roi_align_pyramid_shared(
        maps, [_boxes(10), _boxes(4)], [(2, 2), (3, 3)], SCALES,
        level_rule="torchvision", backend="gather",
    )  # fmt: skip
    alone = roi_align_pyramid(
        maps, _boxes(4), (3, 3), SCALES, level_rule="torchvision", backend="gather"
    )
    ours = torch.autograd.grad(pooled[1].sum(), maps)
    for found, expected in zip(ours, torch.autograd.grad(alone.sum(), maps), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_gradient_does_not_depend_on_threads(threads: int) -> None:
    """Bitwise the same for any number of threads and in every run."""
    before = torch.get_num_threads()
    try:
        gradients = []
        for count in (1, threads, threads):
            torch.set_num_threads(count)
            maps = [m.requires_grad_() for m in _pyramid(16)]
            pooled = roi_align_pyramid(
                maps, _boxes(150), (7, 7), SCALES, level_rule="torchvision", backend="gather"
            )
            gradients.append(torch.autograd.grad(pooled.square().sum(), maps))
    finally:
        torch.set_num_threads(before)
    for other in gradients[1:]:
        assert all(torch.equal(a, b) for a, b in zip(gradients[0], other, strict=True))


def test_gradients_in_float64() -> None:
    """Finite differences."""
    features = _features(2, 5, 6, 1).double().requires_grad_()
    rois = torch.tensor([[0, -2.0, 1.0, 17.0, 15.0], [0, 3.0, 3.0, 9.0, 21.0]])
    for ratio in (0, 2):
        assert torch.autograd.gradcheck(
            lambda f, ratio=ratio: roi_align(
                f, rois, (2, 3), 0.25, sampling_ratio=ratio, aligned=True, backend="gather"
            ),
            (features,),
            atol=1e-6,
        )


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_any_memory_format_gives_channels_last(memory_format: torch.memory_format) -> None:
    """The result lies channels-last, whatever the features' layout."""
    features = _features(8).contiguous(memory_format=memory_format)
    found = roi_align(features, ROIS[:3], (7, 7), 0.25, backend="gather")
    assert found.is_contiguous(memory_format=torch.channels_last)
    expected = torchvision_roi_align(features, ROIS[:3], (7, 7), 0.25, 2)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


boxes_inside = st.tuples(
    st.floats(8, 24, width=32), st.floats(8, 24, width=32),
    st.floats(1, 30, width=32), st.floats(1, 30, width=32),
)  # fmt: skip
options = st.tuples(
    st.sampled_from([0, 1, 2, 3]), st.booleans(), st.sampled_from(["gather", "reference"])
)


@settings(max_examples=40, deadline=None)
@given(box=boxes_inside, option=options, shift=st.tuples(st.integers(0, 3), st.integers(0, 3)))
def test_shifting_picture_and_box_by_whole_cells_shifts_nothing(
    box: tuple[float, float, float, float],
    option: tuple[int, bool, str],
    shift: tuple[int, int],
) -> None:
    """The same content under the same box somewhere else pools to the same values."""
    ratio, aligned, backend = option
    # coordinates on a grid of 1/8 px, so that moving them is exact
    x, y, w, h = (round(value * 8) / 8 for value in box)
    canvas = torch.zeros(1, 2, 24, 24)
    canvas[:, :, :20, :20] = _features(2, 20, 20, 1)
    dy, dx = shift
    roi = torch.tensor([[0.0, x, y, x + w, y + h]])
    moved = roi + torch.tensor([0.0, 4 * dx, 4 * dy, 4 * dx, 4 * dy])
    results = [
        roi_align(f, r, (2, 3), 0.25, sampling_ratio=ratio, aligned=aligned, backend=backend)
        for f, r in ((canvas, roi), (canvas.roll((dy, dx), (2, 3)), moved))
    ]
    torch.testing.assert_close(results[0], results[1], atol=2e-5, rtol=0)


@settings(max_examples=30, deadline=None)
@given(box=boxes_inside, option=options, factor=st.floats(-4, 4, width=32))
def test_it_is_linear_in_the_features(
    box: tuple[float, float, float, float], option: tuple[int, bool, str], factor: float
) -> None:
    """Pooling a · f + g is a times pooling f, plus pooling g."""
    ratio, aligned, backend = option
    x, y, w, h = box
    rois = torch.tensor([[0.0, x, y, x + w, y + h]])
    first, second = _features(2, 20, 20)[:, :, None].unbind(0)
    f, g = first.transpose(0, 1), second.transpose(0, 1)
    pool = [
        roi_align(m, rois, (3, 2), 0.25, sampling_ratio=ratio, aligned=aligned, backend=backend)
        for m in (factor * f + g, f, g)
    ]
    torch.testing.assert_close(pool[0], factor * pool[1] + pool[2], atol=2e-5, rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(box=boxes_inside, option=options, value=st.floats(-100, 100, width=32))
def test_constant_features_give_the_constant(
    box: tuple[float, float, float, float], option: tuple[int, bool, str], value: float
) -> None:
    """Weights add up to one inside the map."""
    ratio, aligned, backend = option
    x, y, w, h = box
    rois = torch.tensor([[0.0, x, y, x + w, y + h]])
    features = torch.full((1, 2, 20, 20), value)
    found = roi_align(
        features, rois, (3, 2), 0.25, sampling_ratio=ratio, aligned=aligned, backend=backend
    )
    torch.testing.assert_close(found, torch.full_like(found, value), atol=1e-5, rtol=1e-5)
