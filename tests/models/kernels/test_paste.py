"""Pasting on a device: the edges that the kernel writes are those of the CPU, whose own tests are in test_paste."""

from __future__ import annotations

import pytest

pytest.importorskip("triton", reason="Triton is only for Linux")

import torch
from torch import Tensor
from torch.nn import functional as F

from segcli.models import paste_kernel
from segcli.models.conventions import Postprocess
from segcli.models.paste import RunLengths, _run_lengths, paste_runs
from segcli.models.paste_boxes import place

SIZE = (9, 36)
NAN = float("nan")
RULES = {
    "truncated_box": Postprocess(mask_paste="truncated_box", mask_inclusive=False),
    "pixel_centres": Postprocess(mask_paste="pixel_centres", mask_inclusive=True),
}
OTHERS = {  # the threshold that the family does not have
    "truncated_box": Postprocess(mask_paste="truncated_box", mask_inclusive=True),
    "pixel_centres": Postprocess(mask_paste="pixel_centres", mask_inclusive=False),
}
BOXES = torch.tensor(
    [
        [0, 0, 36, 9],
        [3.2, 1.7, 34.9, 7.3],
        [-8.5, -3, 12, 4.4],
        [30.1, 5.6, 50, 20],
        [4.5, 2.5, 9.5, 6.5],
        [10, 5, 10.4, 5.3],
        [60, 5, 70, 20],
        [30, 7, 10, 3],
        [NAN, 3, 20, 20],
    ]
)


def masks_of(kind: str, count: int, side: int) -> Tensor:
    """Probabilities, float32 (count, side, side)."""
    generator = torch.Generator().manual_seed(0)
    if kind == "blobs":
        coarse = torch.randn(count, 1, 5, 5, generator=generator) * 6
        return F.interpolate(coarse, (side, side), mode="bicubic").sigmoid()[:, 0]
    if kind == "halves":
        return torch.randint(0, 3, (count, side, side), generator=generator) / 2
    if kind == "near a half":
        return 0.5 + 1e-7 * torch.randn((count, side, side), generator=generator)
    noise = torch.rand((count, side, side), generator=generator)
    return noise if kind == "noise" else noise.where(noise > 0.03, NAN)


def on_device(
    masks: Tensor, boxes: Tensor, size: tuple[int, int], rule: Postprocess, device: str
) -> RunLengths:
    """The kernel's run lengths, also where the device is the CPU and Triton's interpreter runs it."""
    if device != "cpu":
        return paste_runs(masks.to(device), boxes.to(device), size, rule)
    x, y = place(boxes, masks.shape[1], size, rule.mask_paste)
    keys = paste_kernel.edges_on_device(masks, x, y, size, rule)
    return _run_lengths(keys, len(masks), size[0] * size[1])


def check(
    masks: Tensor, boxes: Tensor, size: tuple[int, int], rule: Postprocess, device: str
) -> None:
    found, expected = (
        on_device(masks, boxes, size, rule, device),
        paste_runs(masks, boxes, size, rule),
    )
    assert found.counts.dtype == torch.uint32
    assert found.counts.device.type == found.offsets.device.type == "cpu"
    assert found.offsets.tolist() == expected.offsets.tolist()
    assert found.counts.tolist() == expected.counts.tolist()


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_no_masks(rule: Postprocess, device: str) -> None:
    """Nothing is launched."""
    check(torch.zeros(0, 28, 28), torch.zeros(0, 4), SIZE, rule, device)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_no_box_has_a_pixel(rule: Postprocess, device: str) -> None:
    """No edge at all, and so an output of no size."""
    check(torch.ones(2, 28, 28), BOXES[6:8], SIZE, rule, device)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("kind", ["blobs", "noise", "halves", "near a half", "some NaN"])
def test_equal_to_the_cpu(kind: str, rule: Postprocess, device: str) -> None:
    """Boxes inside, over every border, of less than a pixel, outside, inverted, NaN."""
    check(masks_of(kind, len(BOXES), 28), BOXES, SIZE, rule, device)


@pytest.mark.parametrize("rule", OTHERS.values(), ids=OTHERS)
def test_equal_to_the_cpu_with_the_other_threshold(rule: Postprocess, device: str) -> None:
    """Values of exactly 0.5 among them."""
    check(masks_of("halves", 1, 2), BOXES[4:5], SIZE, rule, device)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize(("side", "size"), [(1, (1, 1)), (2, (9, 4)), (14, (1, 70)), (28, (9, 1))])
def test_awkward_sizes(side: int, size: tuple[int, int], rule: Postprocess, device: str) -> None:
    """Pictures and masks of one pixel, one row, one column."""
    boxes = torch.tensor([[0, 0, size[1], size[0]], [-0.5, -0.5, 1.2, 1.2]], dtype=torch.float32)
    check(masks_of("noise", 2, side), boxes, size, rule, device)


@pytest.mark.parametrize("length", [119, 120, 121])
def test_where_the_operator_changes_its_kernel(length: int, device: str) -> None:
    """The sum of the grown box's sides below, at and above 128; values that only rounding decides."""
    box = torch.tensor([[2.2, 2, 2.2 + length * 28 / 30, 2 + 8 * 28 / 30]])
    x, y = place(box, 28, (9, 120), "truncated_box")
    assert int(x.length + y.length) == length + 9
    check(masks_of("near a half", 1, 28), box, (9, 120), RULES["truncated_box"], device)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_full_masks_are_joined_columns(rule: Postprocess, device: str) -> None:
    """A run from the bottom of a column to the top of the next is one run; so is a whole picture."""
    boxes = torch.tensor([[-90.0, -90, 120, 120], [10, -90, 20, 120]])
    check(torch.ones(2, 28, 28), boxes, (5, 36), rule, device)
