"""RoIAlign: the reference against torchvision's operator and hand-worked cases."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models.detection import maskrcnn_resnet50_fpn
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops import roi_align as torchvision_roi_align

from segcli.models.conventions import Numerics
from segcli.models.pooler import PyramidRoIAlign
from segcli.models.roi_align import roi_align, roi_align_pyramid


def _features(channels: int = 5, height: int = 11, width: int = 13, pictures: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(pictures, channels, height, width, generator=generator)


MAP = torch.zeros(1, 1, 4, 4)
ROIS = torch.tensor(
    [
        [0, 3.0, 4.0, 30.0, 28.0],
        [1, -20.0, -9.0, 12.0, 60.0],  # outside at the left, top and bottom
        [1, 10.0, 10.0, 10.0, 10.0],  # no area
        [0, 51.5, 43.5, 52.0, 44.0],  # at the last cell
        [0, 200.0, 200.0, 240.0, 230.0],  # wholly outside
        [1, 0.0, 0.0, 52.0, 44.0],  # the whole picture
        [0, 30.0, 28.0, 3.0, 4.0],  # turned inside out
    ]
)


@pytest.mark.parametrize("aligned", [False, True], ids=["legacy", "aligned"])
@pytest.mark.parametrize("sampling_ratio", [0, 1, 2, 3], ids=lambda s: f"samples{s}")
@pytest.mark.parametrize("output_size", [(1, 1), (7, 7), (3, 5)], ids=lambda s: f"{s[0]}x{s[1]}")
def test_the_reference_equals_torchvision(
    aligned: bool, sampling_ratio: int, output_size: tuple[int, int]
) -> None:
    """On boxes inside, outside, degenerate and inverted, for every option that both have."""
    features = _features()
    expected = torchvision_roi_align(features, ROIS, output_size, 0.25, sampling_ratio, aligned)
    found = roi_align(
        features, ROIS, output_size, 0.25,
        sampling_ratio=sampling_ratio, aligned=aligned, backend="reference",
    )  # fmt: skip
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("backend", ["reference", "torchvision"])
def test_padding_rows_are_zero_and_no_rois_give_no_rows(backend: str) -> None:
    """Picture index −1 marks a row that pads a fixed-size batch, whatever its box holds."""
    rois = torch.tensor([[-1.0, float("nan"), 0, 1, 1], [0, 1, 1, 30, 30], [2, 1, 1, 30, 30]])
    features = _features()
    features[1] = float("inf")
    found = roi_align(features, rois, (2, 2), 0.25, backend=backend)
    assert torch.all(found[0] == 0)
    assert torch.all(found[1] != 0)
    assert torch.all(found[2] == 0), "an index beyond the last picture"
    assert roi_align(_features(), rois[:0], (2, 2), 0.25, backend=backend).shape == (0, 5, 2, 2)


@pytest.mark.parametrize("backend", ["reference", "torchvision", "gather"])
def test_16_bit_features_keep_their_type_and_rois_their_precision(backend: str) -> None:
    """A box at x = 1000.3 would move by up to half a pixel if it were rounded to bfloat16."""
    features = _features(2, 8, 260, 1)
    rois = torch.tensor([[0, 1000.3, 2.0, 1012.7, 20.0]])
    exact = roi_align(features.bfloat16().float(), rois, (4, 4), 0.25, backend="reference")
    found = roi_align(features.bfloat16(), rois, (4, 4), 0.25, backend=backend)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), exact, atol=0.02, rtol=0.01)


@pytest.mark.parametrize("backend", ["reference", "torchvision", "gather"])
def test_detectron2s_hand_worked_case(backend: str) -> None:
    """On a ramp 0 … 24 the aligned 4 × 4 pooling of (1, 1, 3, 3) reads 4.5, 5.0, 5.5 … (detectron2's own test)."""
    ramp = torch.arange(25, dtype=torch.float32).reshape(1, 1, 5, 5)
    rois = torch.tensor([[0, 1.0, 1.0, 3.0, 3.0]])
    expected = [
        [4.5, 5.0, 5.5, 6.0],
        [7.0, 7.5, 8.0, 8.5],
        [9.5, 10.0, 10.5, 11.0],
        [12.0, 12.5, 13.0, 13.5],
    ]
    found = roi_align(ramp, rois, (4, 4), 1.0, sampling_ratio=0, aligned=True, backend=backend)
    torch.testing.assert_close(found[0, 0], torch.tensor(expected), atol=1e-6, rtol=0)


def test_maximum_over_the_samples() -> None:
    """Mode `max` takes the largest sample of a bin."""
    ramp = torch.arange(25, dtype=torch.float32).reshape(1, 1, 5, 5)
    rois = torch.tensor([[0, 0.5, 0.5, 4.5, 4.5]])
    found = roi_align(ramp, rois, (1, 1), 1.0, sampling_ratio=4, aligned=True, mode="max")
    assert found.item() == pytest.approx(3.5 * 5 + 3.5)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_gradients_of_the_reference_in_float64(aligned: bool, sampling_ratio: int) -> None:
    """The reference is differentiable in its features; checked by finite differences."""
    features = _features(2, 5, 6, 1).double().requires_grad_()
    rois = torch.tensor([[0, -2.0, 1.0, 17.0, 15.0], [0, 3.0, 3.0, 9.0, 21.0]])
    assert torch.autograd.gradcheck(
        lambda f: roi_align(
            f, rois, (2, 3), 0.25,
            sampling_ratio=sampling_ratio, aligned=aligned, backend="reference",
        ),
        (features,),
    )  # fmt: skip


def _pyramid() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, 3, 256 // s, 320 // s, generator=generator) for s in (4, 8, 16, 32)]


def test_the_pyramid_equals_torchvisions_module() -> None:
    """Same levels, same values, bit for bit, for boxes of all sizes."""
    generator = torch.Generator().manual_seed(2)
    corner = torch.rand(60, 2, generator=generator) * 200
    side = torch.exp(torch.rand(60, 2, generator=generator) * 5.5)
    boxes = [torch.cat((corner, corner + side), 1)[:25], torch.cat((corner, corner + side), 1)[25:]]
    x = dict(zip("0123", _pyramid(), strict=True)) | {"pool": torch.zeros(2, 3, 4, 5)}
    stock = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)
    ours = PyramidRoIAlign(7, Numerics(), "torchvision")
    assert torch.equal(ours(x, boxes, []), stock(x, boxes, [(256, 320), (256, 320)]))


def test_backends_agree_on_a_pyramid() -> None:
    """The reference, torchvision's operator and the gather pool the same values from the same levels."""
    rois = torch.tensor(
        [[0, 4.0, 4, 40, 60], [1, 0, 0, 310, 250], [-1, 0, 0, 9, 9], [1, 9, 9, 180, 99]]
    )
    results = [
        roi_align_pyramid(
            _pyramid(), rois, (3, 3), (1 / 4, 1 / 8, 1 / 16, 1 / 32),
            level_rule="detectron2", aligned=True, sampling_ratio=0, backend=backend,
        )
        for backend in ("reference", "torchvision", "gather")
    ]  # fmt: skip
    torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=0)
    torch.testing.assert_close(results[0], results[2], atol=1e-5, rtol=0)


def test_it_fits_into_torchvisions_mask_rcnn() -> None:
    """Our pooler replaces torchvision's in its own model: no state, and the same outputs."""
    torch.manual_seed(0)
    model = maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=3, min_size=96, box_score_thresh=0.0
    ).eval()
    names = list(model.state_dict())
    picture = [torch.rand(3, 96, 128)]
    with torch.inference_mode():
        before = model(picture)[0]
        model.roi_heads.box_roi_pool = PyramidRoIAlign(7, Numerics())
        model.roi_heads.mask_roi_pool = PyramidRoIAlign(14, Numerics())
        after = model(picture)[0]
    assert isinstance(model.roi_heads.box_roi_pool, MultiScaleRoIAlign)
    assert list(model.state_dict()) == names
    assert len(before["boxes"]) > 0
    for key in ("boxes", "scores", "masks"):
        torch.testing.assert_close(after[key], before[key], atol=1e-3, rtol=0)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "boxes without a picture": ({"rois": torch.zeros(2, 4)}, r"shape \(2, 4\), expected \(R, 5\)"),
    "one box": ({"rois": torch.zeros(5)}, r"expected \(R, 5\)"),
    "RoIs elsewhere": ({"rois": torch.zeros(1, 5, device="meta")}, "RoIs on meta, features on cpu"),
    "five levels": ({"features": [MAP] * 5, "spatial_scales": (1.0,) * 5}, "1 to 4 levels"),
    "no levels": ({"features": [], "spatial_scales": ()}, "0 feature maps"),
    "a scale too few": ({"spatial_scales": (0.25,)}, "2 feature maps and 1 scales"),
    "a level left out": ({"spatial_scales": (0.25, 0.0625)}, "each half of the one before"),
    "levels reversed": ({"spatial_scales": (0.125, 0.25)}, "each half of the one before"),
    "odd scales": ({"spatial_scales": (0.3, 0.15)}, "expected powers of two"),
    "a scale of zero": ({"spatial_scales": (0.0, 0.0)}, "spatial scale 0.0, expected a positive"),
    "two types": ({"features": [MAP, MAP.half()]}, "differ in type"),
    "two batches": ({"features": [MAP, torch.zeros(2, 1, 2, 2)]}, "differ in pictures"),
    "two widths": ({"features": [MAP, torch.zeros(1, 2, 2, 2)]}, "differ in channels"),
    "whole numbers": ({"features": [MAP.int()] * 2}, "of a float type"),
    "no batch axis": ({"features": [MAP[0]] * 2}, r"expected \(N, C, H, W\)"),
    "a negative ratio": ({"sampling_ratio": -1}, "sampling ratio -1"),
    "no bins": ({"output_size": (0, 2)}, "at least 1 bin"),
    "an unknown mode": ({"mode": "sum"}, "mode 'sum'"),
    "an unknown rule": ({"level_rule": "own"}, "level rule 'own'"),
    "an unknown backend": ({"backend": "cuda"}, "expected one of auto, triton"),
}


@pytest.mark.parametrize("backend", ["gather", "torchvision", "reference"])
@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused(case: str, backend: str) -> None:
    """By every backend alike, with what was found and what was expected."""
    change, message = BAD[case]
    given: dict[str, Any] = {
        "features": [MAP, torch.zeros(1, 1, 2, 2)], "rois": torch.zeros(1, 5), "output_size": (2, 2),
        "spatial_scales": (0.25, 0.125), "level_rule": "torchvision", "backend": backend,
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        roi_align_pyramid(**(given | change))


@pytest.mark.parametrize("backend", ["gather", "torchvision", "reference"])
def test_rois_are_float32_for_the_level_too(backend: str) -> None:
    """The area of a box of 400 pixels overflows in float16; its level is chosen from float32."""
    maps = [torch.full((1, 1, 512 // s, 512 // s), float(s)) for s in (4, 8, 16, 32)]
    found = roi_align_pyramid(
        maps, torch.tensor([[0, 8, 8, 408, 408.0]]).half(), (1, 1), (1 / 4, 1 / 8, 1 / 16, 1 / 32),
        level_rule="torchvision", backend=backend,
    )  # fmt: skip
    assert found.item() == 16.0


def test_the_maximum_has_a_gradient_by_itself() -> None:
    """`auto` takes the reference where a gradient of `max` is wanted: the only one that has it."""
    features = _features().requires_grad_()
    pooled = roi_align(features, ROIS[:2], (2, 2), 0.25, mode="max")
    assert torch.autograd.grad(pooled.sum(), features)[0].any()


def test_poolers_that_differ_do_not_pool_together() -> None:
    """Other numerics of the second would silently be the first's."""
    boxes, masks = PyramidRoIAlign(7, Numerics()), PyramidRoIAlign(14, Numerics(roi_aligned=True))
    with pytest.raises(ValueError, match="differ in more than their output size"):
        boxes.pool_tables(masks, _pyramid(), ROIS[:1], ROIS[:1])
