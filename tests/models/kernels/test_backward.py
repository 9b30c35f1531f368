"""Both backward kernels against autograd of the reference; of the deterministic one also its lists, cuts and bits."""

from __future__ import annotations

import dataclasses
import math

import pytest

pytest.importorskip("triton", reason="Triton is only for Linux")

import torch
from torch import Tensor

from segcli.models.roi_align import backward_atomic, backward_kernel
from segcli.models.roi_align.launch import BackwardLaunch, backward_launch
from segcli.models.roi_align.levels import area_thresholds, box_areas, levels_by_area
from segcli.models.roi_align.reference import roi_align_reference
from segcli.models.roi_align.sampling import Sampling

NAN, INF = math.nan, math.inf
SCALES = (1 / 4, 1 / 8, 1 / 16, 1 / 32)
EVERY_BOX = torch.tensor(
    [
        [0, 3.0, 4.0, 30.0, 28.0],
        [0, 51.5, 43.5, 52.0, 44.0],  # at the last cell
        [0, 30.0, 28.0, 3.0, 4.0],  # inside out
        [-1, 0.0, 0.0, 9.0, 9.0],  # padding
        [2, 0.0, 0.0, 9.0, 9.0],  # beyond the last picture
        [NAN, 0.0, 0.0, 9.0, 9.0],
        [0, 200.0, 200.0, 240.0, 230.0],  # wholly outside
        [0, NAN, 0.0, 9.0, 9.0],
        [0, 0.0, 0.0, INF, 9.0],
        [0, -INF, 0.0, 9.0, 9.0],
        [1, -20.0, -9.0, 12.0, 50.0],  # over the edge
        [1, 10.0, 10.0, 10.0, 10.0],  # no area
        [1, -3000.0, 5.0, 800.0, 20.0],  # not clipped
        [1, 0.0, 0.0, 52.0, 44.0],  # the whole picture
    ]
)
PLAIN = EVERY_BOX[[0, 1, 10, 13]]
FORMS = {"deterministic": backward_kernel.backward, "atomic": backward_atomic.backward}
Shapes = list[tuple[int, int, int, int]]

PLAINLY = Sampling((0.25,))

both_forms = pytest.mark.parametrize("form", FORMS)


def one_level(channels: int, height: int = 11, width: int = 13) -> Shapes:
    """Two pictures; neither side a multiple of a tile's."""
    return [(2, height, width, channels)]


def gradient(rois: Tensor, size: tuple[int, int], channels: int) -> Tensor:
    """Of a pooling's output, float32 (R, h, w, C), seeded."""
    generator = torch.Generator().manual_seed(channels)
    return torch.randn(len(rois), *size, channels, generator=generator)


def by_kernel(
    device: str, form: str, grads: list[Tensor], rois: list[Tensor], shapes: Shapes, how: Sampling,
    dtype: torch.dtype = torch.float32,
) -> list[Tensor]:  # fmt: skip
    """Per level (N, H, W, C), on the CPU."""
    there = [[t.to(device) for t in tensors] for tensors in (grads, rois)]
    found = FORMS[form](*there, shapes, dtype, how)
    assert [tuple(level.shape) for level in found] == shapes
    assert all(level.dtype == dtype and level.is_contiguous() for level in found)
    return [level.cpu() for level in found]


def by_autograd(
    grads: list[Tensor], rois: list[Tensor], shapes: Shapes, how: Sampling
) -> list[Tensor]:
    """Float64, through the reference."""
    maps = [
        torch.zeros(n, c, h, w, dtype=torch.float64, requires_grad=True) for n, h, w, c in shapes
    ]
    total = sum(level.sum() * 0 for level in maps)
    for grad, boxes in zip(grads, rois, strict=True):
        levels = levels_by_area(box_areas(boxes[:, 1:]), how.thresholds)
        for i, level in enumerate(maps):
            rows = torch.where(levels == i)[0]
            pooled = roi_align_reference(
                level, boxes[rows], (grad.shape[1], grad.shape[2]), how.scales[i],
                sampling_ratio=how.ratio, aligned=how.aligned, mode="avg",
            )  # fmt: skip
            total = total + (pooled.permute(0, 2, 3, 1) * grad[rows].double()).sum()
    return [g.permute(0, 2, 3, 1) for g in torch.autograd.grad(total, maps)]


def check(
    device: str, form: str, grads: list[Tensor], rois: list[Tensor], shapes: Shapes, how: Sampling
) -> list[Tensor]:
    """Within 1e-5 of the largest gradient; that nothing is NaN says that every element was written."""
    found = by_kernel(device, form, grads, rois, shapes, how)
    for ours, theirs in zip(found, by_autograd(grads, rois, shapes, how), strict=True):
        limit = 1e-5 * float(theirs.abs().max())
        torch.testing.assert_close(ours.double(), theirs, atol=limit, rtol=0)
    return found


def check_one(
    device: str, rois: Tensor, size: tuple[int, int], channels: int, how: Sampling = PLAINLY,
    form: str = "deterministic",
) -> None:  # fmt: skip
    """One pooling of one level."""
    check(device, form, [gradient(rois, size, channels)], [rois], one_level(channels), how)


@pytest.mark.parametrize("rows", [0, 5], ids=["no rows", "padding"])
@both_forms
def test_rows_without_a_picture_give_nothing(device: str, form: str, rows: int) -> None:
    """Even where their gradient is not a number: such rows pad a batch of fixed size and hold anything."""
    rois = torch.tensor([[i, 0.0, 0.0, 9.0, 9.0] for i in (-1, 2, NAN, 1e9, -INF)])[:rows]
    grad = torch.full((rows, 2, 3, 5), NAN)
    (found,) = by_kernel(device, form, [grad], [rois], one_level(5), PLAINLY)
    assert torch.equal(found, torch.zeros(2, 11, 13, 5))


@both_forms
def test_maps_without_cells(device: str, form: str) -> None:
    """A gradient of no elements; a level without cells takes nothing from the others."""
    how, rois = Sampling(SCALES[:2], (500.0,)), PLAIN
    grads = [gradient(rois, (2, 2), 5)]
    assert by_kernel(device, form, grads, [rois], [(2, 0, 7, 5), (2, 3, 0, 5)], how)[0].numel() == 0
    found = by_kernel(device, form, grads, [rois], [(2, 11, 13, 5), (2, 0, 7, 5)], how)
    small = levels_by_area(box_areas(rois[:, 1:]), how.thresholds) == 0
    assert 0 < int(small.sum()) < len(rois)
    (expected,) = by_autograd([grads[0][small]], [rois[small]], one_level(5), PLAINLY)
    torch.testing.assert_close(found[0].double(), expected, atol=1e-5, rtol=0)


@both_forms
def test_max_pooling_is_refused(device: str, form: str) -> None:
    """Its gradient would need to know which sample won."""
    with pytest.raises(ValueError, match="'max', expected 'avg'"):
        FORMS[form]([], [], one_level(5), torch.float32, Sampling((0.25,), mode="max"))


def test_sets_that_do_not_match_are_refused() -> None:
    """A gradient without its RoIs."""
    with pytest.raises(ValueError, match="zip"):
        backward_kernel.backward(
            [PLAIN[:, :, None, None]] * 2, [PLAIN], one_level(1), torch.float32, PLAINLY
        )


@pytest.mark.parametrize("aligned", [False, True], ids=["legacy", "aligned"])
@pytest.mark.parametrize("ratio", [0, 1, 2, 3], ids=lambda ratio: f"samples{ratio}")
def test_every_option(device: str, ratio: int, aligned: bool) -> None:
    """On boxes that no detector should make, with channels that fill no block."""
    check_one(device, EVERY_BOX, (2, 3), 5, Sampling((0.25,), (), ratio, aligned))


@pytest.mark.parametrize("ratio", [0, 2], ids=lambda ratio: f"samples{ratio}")
def test_every_box_atomically(device: str, ratio: int) -> None:
    """The atomic form on the same boxes."""
    how = Sampling((0.25,), (), ratio, aligned=ratio == 2)
    check_one(device, EVERY_BOX[ratio:], (2, 2), 5, how, form="atomic")


AWKWARD = {
    "one bin": ((1, 1), 1, 0),
    "a usual head": ((7, 7), 20, 2),
    "more bins than are in flight": ((2, 11), 3, 2),
    "more bins than a block": ((18, 1), 4, 1),
    "more bins than 8 bits count": ((1, 300), 1, 1),
    "more channels than a block": ((1, 2), 140, 2),
}


@pytest.mark.parametrize(("size", "channels", "ratio"), AWKWARD.values(), ids=AWKWARD)
def test_awkward_sizes(device: str, size: tuple[int, int], channels: int, ratio: int) -> None:
    """What is no multiple of a block or more than one, along every axis."""
    check_one(device, PLAIN[2:], size, channels, Sampling((0.25,), (), ratio))


@pytest.mark.parametrize("levels", [2, 4])
@both_forms
def test_levels(device: str, form: str, levels: int) -> None:
    """Each RoI's gradient goes to the level it was pooled from, and every level is written."""
    sides = torch.tensor([30.0, 112.0, 224.0, 448.0])
    rois = torch.zeros(len(sides), 5)
    rois[:, 0] = torch.tensor([0.0, 1.0, 0.0, 1.0])
    rois[:, 1:3], rois[:, 3], rois[:, 4] = 3.0, sides + 3, sides + 3
    how = Sampling(SCALES[:levels], area_thresholds(2, 1 + levels, "torchvision"))
    shapes = [(2, 16 >> i, 20 >> i, 3) for i in range(levels)]
    found = check(device, form, [gradient(rois, (2, 2), 3)], [rois], shapes, how)
    assert all(bool(level.any()) for level in found)


@both_forms
def test_two_poolings_end_in_one_gradient(device: str, form: str) -> None:
    """As boxes and masks do; it is the sum of the gradients alone. An empty second one changes no bit."""
    sizes, rois, how = ((2, 2), (3, 1)), [PLAIN[:3], EVERY_BOX[10:13]], PLAINLY
    grads = [gradient(r, size, 4) for r, size in zip(rois, sizes, strict=True)]
    (both,) = check(device, form, grads, rois, one_level(4), how)
    one, two = slice(0, 1), slice(1, 2)
    alone = [by_kernel(device, form, grads[i], rois[i], one_level(4), how)[0] for i in (one, two)]
    torch.testing.assert_close(both, alone[0] + alone[1], atol=1e-5, rtol=0)
    grads[1], rois[1] = grads[1][:0], rois[1][:0]
    (padded,) = by_kernel(device, form, grads, rois, one_level(4), how)
    if form == "deterministic" or device == "cpu":
        assert torch.equal(padded, alone[0])


@pytest.mark.parametrize("ratio", [0, 2])
def test_pictures_in_any_order(device: str, ratio: int) -> None:
    """RoIs are mostly grouped by picture; those that are not, among rows of padding, are found too."""
    rois = EVERY_BOX[[10, 0, 3, 13, 1, 5, 12, 2]]
    check_one(device, rois, (2, 2), 4, Sampling((0.25,), (), ratio))


@pytest.mark.parametrize(
    ("dtype", "half_ulp"), [(torch.bfloat16, 2.0**-8), (torch.float16, 2.0**-11)], ids=str
)
@both_forms
def test_16_bit_gradients_are_rounded_once(
    device: str, form: str, dtype: torch.dtype, half_ulp: float
) -> None:
    """Sums are float32: rounded at the end they differ from the exact ones by half a step, or one if truncated.

    Triton's interpreter truncates where a GPU rounds.
    """
    grad = gradient(PLAIN, (2, 3), 4).to(dtype)
    (found,) = by_kernel(device, form, [grad], [PLAIN], one_level(4), PLAINLY, dtype)
    (exact,) = by_autograd([grad.float()], [PLAIN], one_level(4), PLAINLY)
    torch.testing.assert_close(found.double(), exact, atol=2e-6, rtol=2.01 * half_ulp)


def test_types_may_differ(device: str) -> None:
    """One pooling's gradient in float32, the other's in bfloat16, the features' in float16."""
    grads, rois = [gradient(PLAIN, (2, 2), 4), gradient(PLAIN, (3, 1), 4).bfloat16()], [PLAIN] * 2
    (found,) = by_kernel(device, "deterministic", grads, rois, one_level(4), PLAINLY, torch.float16)
    (exact,) = by_autograd([g.float() for g in grads], rois, one_level(4), PLAINLY)
    torch.testing.assert_close(found.double(), exact, atol=2e-6, rtol=2.0**-10)


CROWD = PLAIN[[0, 0, 0, 0, 1, 2, 3, 3]]


@pytest.mark.parametrize(
    ("chunk", "slots"),
    [(1, 24), (3, 8), (1, 3), (1, 0), (100, 2)],
    ids=["each alone", "uneven", "few slots", "no slots", "nothing to cut"],
)
def test_cut_lists(device: str, monkeypatch: pytest.MonkeyPatch, chunk: int, slots: int) -> None:
    """Where many RoIs lie on one tile its list is cut; chunks grow until they fit the slots. Sums stay the same."""
    cut(monkeypatch, chunk, slots)
    check_one(device, CROWD, (2, 2), 3)


def cut(monkeypatch: pytest.MonkeyPatch, chunk: int, slots: int) -> None:
    """Other limits than the table's, which need more RoIs than the interpreter is fast enough for."""

    def launch(channels: int, rois: int) -> BackwardLaunch:
        return dataclasses.replace(backward_launch(channels, rois), chunk=chunk, slots=slots)

    monkeypatch.setattr(backward_kernel, "backward_launch", launch)


def test_a_cut_list_needs_its_slots(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the kernel that adds chunks up, the tile is never written: so the tests above do cut."""
    cut(monkeypatch, chunk=2, slots=16)
    monkeypatch.setattr(backward_kernel, "reduce_kernel", {(16, 8, 1): lambda *_, **__: None})
    given = [gradient(CROWD, (1, 1), 3)], [CROWD], one_level(3), PLAINLY
    assert by_kernel(device, "deterministic", *given)[0].isnan().any()


def test_lists_filled_to_the_last_place(device: str) -> None:
    """RoIs that touch every tile of their picture make the lists as long as they can be."""
    check_one(device, PLAIN[[3, 3, 3]], (3, 3), 2)


@pytest.mark.parametrize("chunk", [2, 100], ids=["cut", "whole"])
def test_every_run_has_the_same_bits(
    device: str, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    """Whether lists are cut or not."""
    cut(monkeypatch, chunk, slots=16)
    given = [gradient(CROWD, (1, 1), 3)], [CROWD], one_level(3, 8, 10), PLAINLY
    runs = [
        by_kernel(device, "deterministic", *given)[0].view(torch.int32)
        for _ in range(2 if device == "cpu" else 10)
    ]
    assert all(torch.equal(run, runs[0]) for run in runs)


def test_a_gradient_that_is_not_finite_stays_with_its_tiles(device: str) -> None:
    """Where a loss overflows the tiles under the RoI show it, and no others do."""
    rois = torch.tensor([[0, 4.0, 4.0, 20.0, 20.0]])
    grad = gradient(rois, (2, 2), 1)
    grad[0, 0, 0] = INF
    shapes = one_level(1, 24, 24)
    (found,) = by_kernel(device, "deterministic", [grad], [rois], shapes, PLAINLY)
    assert not found[0, :8, :8].isfinite().all()
    assert not found[:, 8:].any()
    assert not found[:, :, 8:].any()
