"""Pasting to run lengths: torchvision's and detectron2's rules bit for bit, as pycocotools encodes them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection.roi_heads import paste_masks_in_image

from segcli.masks import Masks
from segcli.models import paste, paste_exact
from segcli.models.conventions import Postprocess
from segcli.models.paste import RunLengths, paste_runs
from segcli.models.paste_boxes import place

REPOSITORY = Path(__file__).resolve().parents[2]
SIZE = (40, 50)
NAN, INF = float("nan"), float("inf")
RULES = {
    f"{rule} {'>=' if inclusive else '>'}": Postprocess(mask_paste=rule, mask_inclusive=inclusive)
    for rule in ("truncated_box", "pixel_centres")
    for inclusive in (False, True)
}
BOXES = {
    "inside": [3.2, 4.7, 30.9, 33.3],
    "full frame": [0, 0, 50, 40],
    "beyond all sides": [-11.5, -20, 71, 55],
    "over the left and top": [-8.5, -3, 12, 9.4],
    "over the right and bottom": [44.1, 35.6, 70, 60],
    "touching the left": [0, 10, 9, 20],
    "touching the right": [41, 10, 50, 20],
    "touching the top": [10, 0, 20, 7],
    "touching the bottom": [10, 33, 20, 40],
    "full height": [20, 0, 30, 40],
    "beyond top and bottom": [20, -30, 30, 70],
    "at half pixels": [4.5, 4.5, 20.5, 24.5],
    "less than a pixel": [10, 10, 10.4, 10.3],
    "less than a pixel, on no centre": [10.6, 10.6, 10.9, 10.8],
    "tall and narrow": [7.3, 1, 7.9, 39],
    "flat and wide": [2, 7.3, 49, 8.1],
}
EMPTY_BOXES = {
    "right of the picture": [60, 5, 70, 20],
    "above": [5, -30, 20, -20],
    "below": [5, 60, 20, 70],
    "inverted": [30, 30, 10, 10],
    "NaN": [NAN, NAN, NAN, NAN],
    "one NaN": [3, NAN, 20, 20],
    "infinite": [3, 3, INF, 20],
    "minus infinite": [-INF, -INF, INF, INF],
    "around the world": [-1e10, -1e10, 1e10, 1e10],
}


def masks_of(kind: str, count: int, side: int, seed: int = 0) -> Tensor:
    """Probabilities of a kind, float32 (count, side, side)."""
    generator = torch.Generator().manual_seed(seed)
    shape = (count, side, side)
    if kind == "blobs":
        coarse = torch.randn(count, 1, 5, 5, generator=generator) * 6
        return F.interpolate(coarse, (side, side), mode="bicubic").sigmoid()[:, 0]
    noise = torch.rand(shape, generator=generator)
    if kind == "noise":
        return noise
    if kind == "halves":  # 0, 0.5 and 1
        return torch.randint(0, 3, shape, generator=generator) / 2
    if kind == "near a half":
        return 0.5 + 1e-7 * torch.randn(shape, generator=generator)
    if kind == "some NaN":
        return noise.where(torch.rand(shape, generator=generator) > 0.02, NAN)
    if kind == "logits":  # not probabilities
        return torch.randn(shape, generator=generator) * 100
    return torch.full(shape, {"zeros": 0.0, "ones": 1.0}[kind])


KINDS = ["blobs", "noise", "halves", "near a half", "some NaN", "logits", "zeros", "ones"]


def pasted(
    mask: Tensor, box: Tensor, size: tuple[int, int], rule: Postprocess
) -> NDArray[np.bool_]:
    """One mask over the whole picture, by torchvision's own code or as detectron2 does, bool (H, W)."""
    if rule.mask_paste == "truncated_box":
        soft = paste_masks_in_image(mask[None, None], box[None], size)[0, 0]
    else:
        x0, y0, x1, y1 = box
        ys = (torch.arange(size[0]) + 0.5 - y0) / (y1 - y0) * 2 - 1
        xs = (torch.arange(size[1]) + 0.5 - x0) / (x1 - x0) * 2 - 1
        grid = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), 2)
        soft = F.grid_sample(mask[None, None], grid[None], align_corners=False)[0, 0]
        # by both, no pixel beyond the box is looked at; it matters for numbers that are no probabilities
        left, top = (max(int(v) - 1, 0) for v in (x0, y0))
        soft[: top if top < size[0] else None] = 0
        soft[:, :left] = 0
        soft[max(int(y1) + 2, 0) :] = 0
        soft[:, max(int(x1) + 2, 0) :] = 0
    return (soft >= 0.5 if rule.mask_inclusive else soft > 0.5).numpy()


def coco_text(dense: NDArray[np.bool_]) -> str:
    """What pycocotools writes for a bool (H, W) mask."""
    text: bytes = coco_mask.encode(np.asfortranarray(dense, dtype=np.uint8))["counts"]
    return text.decode("ascii")


def texts(runs: RunLengths, size: tuple[int, int]) -> list[str]:
    """COCO's text of each mask."""
    made = Masks(runs.counts.numpy(), runs.offsets.numpy(), size)
    return [made.coco(i)["counts"] for i in range(len(made))]


def check(masks: Tensor, boxes: Tensor, size: tuple[int, int], rule: Postprocess) -> None:
    """Equal bits to pasting over the whole picture, thresholding and encoding."""
    found = texts(paste_runs(masks, boxes, size, rule), size)
    for i, (mask, box) in enumerate(zip(masks, boxes, strict=True)):
        assert found[i] == coco_text(pasted(mask, box, size, rule)), (i, box.tolist(), size)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_no_masks(rule: Postprocess) -> None:
    """Nothing in, nothing out, with the types of something."""
    runs = paste_runs(torch.zeros(0, 28, 28), torch.zeros(0, 4), SIZE, rule)
    assert (runs.counts.dtype, runs.counts.tolist()) == (torch.uint32, [])
    assert (runs.offsets.dtype, runs.offsets.tolist()) == (torch.int64, [0])


@pytest.mark.parametrize(
    ("masks", "boxes"), [((2, 28, 28), (3, 4)), ((1, 28, 27), (1, 4)), ((1, 0, 0), (1, 4)), ((28, 28), (28, 4))]
)  # fmt: skip
def test_shapes_that_do_not_fit(masks: tuple[int, ...], boxes: tuple[int, ...]) -> None:
    """They are named."""
    with pytest.raises(ValueError, match="expected"):
        paste_runs(torch.zeros(masks), torch.zeros(boxes), SIZE, Postprocess())


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("box", EMPTY_BOXES.values(), ids=EMPTY_BOXES)
def test_boxes_without_a_pixel_give_empty_masks(box: list[float], rule: Postprocess) -> None:
    """They fail nothing, and leave their neighbours alone."""
    boxes = torch.tensor([BOXES["inside"], box, BOXES["inside"]], dtype=torch.float32)
    runs = paste_runs(torch.ones(3, 28, 28), boxes, SIZE, rule)
    first, second, third = (runs.counts[a:b].tolist() for a, b in runs.offsets.unfold(0, 2, 1))
    assert second == [SIZE[0] * SIZE[1]]
    assert first == third
    assert len(first) > 1


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("side", [1, 2, 28])
@pytest.mark.parametrize("kind", KINDS)
def test_equal_bits(kind: str, side: int, rule: Postprocess) -> None:
    """Boxes inside, over and at every border, of less than a pixel, at half pixels."""
    boxes = torch.tensor(list(BOXES.values()), dtype=torch.float32)
    check(masks_of(kind, len(boxes), side), boxes, SIZE, rule)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize(
    "size", [(1, 1), (1, 300), (300, 1), (400, 3), (64, 64), (64, 65), (90, 700)]
)
def test_equal_bits_over_whole_pictures(size: tuple[int, int], rule: Postprocess) -> None:
    """One pixel, tall and wide, at the sizes where ATen changes its kernel; masks that are full are joined runs."""
    boxes = torch.tensor([[0, 0, size[1], size[0]]] * 4, dtype=torch.float32)
    boxes[1] += 0.3
    boxes[2:] += torch.tensor([-size[1], -size[0], size[1], size[0]])
    masks = masks_of("blobs", 4, 28)
    masks[3] = 1
    check(masks, boxes, size, rule)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("kind", ["blobs", "noise", "near a half"])
def test_equal_bits_in_bands(kind: str, rule: Postprocess) -> None:
    """Boxes so large that the surface and the columns in doubt are made in pieces."""
    size = (700, 1900)
    boxes = torch.tensor([[0, 0, 1900, 700], [-50.5, 12.25, 1700, 690], [300, -100, 310, 900]])
    check(masks_of(kind, 3, 28), boxes, size, rule)


def random_boxes(count: int, size: tuple[int, int], seed: int) -> Tensor:
    """Log-uniform in size, some of whole and half pixels, some clipped, all with at least a pixel's share."""
    generator = torch.Generator().manual_seed(seed)
    extent = torch.tensor([size[1], size[0]], dtype=torch.float32)
    centre = torch.rand(count, 2, generator=generator) * extent
    half = torch.exp(torch.rand(count, 2, generator=generator) * 7 - 1)
    boxes = torch.cat((centre - half, centre + half), 1)
    boxes[::3] = (boxes[::3] * 2).round() / 2
    boxes[1::3] = boxes[1::3].clamp(min=0).minimum(torch.cat((extent, extent)))
    return boxes


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 200), width=st.integers(1, 200), side=st.sampled_from([1, 2, 7, 14, 28, 56]),
    kind=st.sampled_from(KINDS), seed=st.integers(0, 10**6),
)  # fmt: skip
def test_equal_bits_at_random(
    height: int, width: int, side: int, kind: str, seed: int, rule: Postprocess
) -> None:
    """Any picture, boxes of all sizes, some beyond it."""
    boxes = random_boxes(8, (height, width), seed)
    check(masks_of(kind, 8, side, seed), boxes, (height, width), rule)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_thousands(rule: Postprocess) -> None:
    """Smooth masks in small boxes, several bands of them."""
    size = (80, 120)
    check(masks_of("blobs", 1500, 28), random_boxes(1500, size, 5), size, rule)


@pytest.mark.parametrize("inclusive", [True, False])
def test_a_probability_of_exactly_one_half(inclusive: bool) -> None:
    """detectron2 and mmdetection count it, torchvision does not."""
    rule = Postprocess(mask_paste="pixel_centres", mask_inclusive=inclusive)
    runs = paste_runs(torch.full((1, 4, 4), 0.5), torch.tensor([[8.0, 8, 16, 16]]), SIZE, rule)
    assert (len(runs.counts) > 1) is inclusive


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_without_doubts_nothing_changes(rule: Postprocess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every column by the operator itself gives what the short way gives."""
    masks, boxes, size = masks_of("blobs", 40, 28), random_boxes(40, (150, 170), 9), (150, 170)
    short = texts(paste_runs(masks, boxes, size, rule), size)
    monkeypatch.setattr(paste, "_DOUBT_OF_SUMS", 1.0)
    assert texts(paste_runs(masks, boxes, size, rule), size) == short


@pytest.mark.parametrize(
    "box", [[0, 0, 30, 700], [0, 0, 900, 20], [5, 5, 600, 400], [0, 0, 30, 30], [0, 0, 3, 9000]]
)
def test_columns_alone_have_the_bits_of_the_whole(box: list[float]) -> None:
    """Resized an axis at a time, whatever kernel ATen takes for the whole."""
    mask, boxes = masks_of("noise", 1, 28)[0], torch.tensor([box], dtype=torch.float32)
    x, y = (paste_exact._of(axis, 0) for axis in place(boxes, 28, (9000, 900), "truncated_box"))
    columns = torch.arange(int(x.start), int(x.end), 3)
    padded = F.pad(mask, (1, 1, 1, 1))[None, None]
    whole = F.interpolate(padded, (int(y.length), int(x.length)), mode="bilinear")[0, 0]
    rows = slice(int(y.start - y.origin), int(y.end - y.origin))
    for band, values in paste_exact._truncated(mask, x, y, columns):
        assert torch.equal(values, whole[rows, band - x.origin].T)


def test_half_precision_is_taken_as_float32() -> None:
    """A network under autocast gives bf16."""
    masks, boxes = masks_of("blobs", 1, 28).bfloat16(), torch.tensor([BOXES["inside"]])
    expected = texts(paste_runs(masks.float(), boxes, SIZE, Postprocess()), SIZE)
    assert texts(paste_runs(masks, boxes, SIZE, Postprocess()), SIZE) == expected


MEMORY = """
import torch
from pathlib import Path
from segcli.models.conventions import Postprocess
from segcli.models.paste import paste_runs

def status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))

rule = Postprocess(mask_paste="{rule}")
generator = torch.Generator().manual_seed(0)
coarse = torch.randn(1, 1, 5, 5, generator=generator) * 6
masks = torch.nn.functional.interpolate(coarse, (28, 28), mode="bicubic").sigmoid()[:, 0]
halves = torch.full((1, 28, 28), 0.5)
for mask in (masks, halves):
    paste_runs(mask, torch.tensor([[0.0, 0, 40, 30]]), (30, 40), rule)
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
for mask in (masks, halves):
    paste_runs(mask, torch.tensor([[0.0, 0, 12000, 900]]), (900, 12000), rule)
    paste_runs(mask[:, :14, :14], torch.tensor([[0.0, 0, 900, 9000]]), (9000, 900), rule)
paste_runs(masks, torch.tensor([[0.0, 0, 12000, 9000]]), (9000, 12000), rule)
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the highest resident size is read as on Linux")
@pytest.mark.parametrize("rule", ["truncated_box", "pixel_centres"])
def test_memory_does_not_grow_with_the_picture(rule: str) -> None:
    """At most 32 MB over what was there, for 108 MP in one box, and where every column is in doubt.

    glibc is told to give memory back at once: what its heap keeps between blocks (up to 80 MB here) is not in use.
    """
    heap = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    run = subprocess.run(
        [sys.executable, "-c", MEMORY.format(rule=rule)],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"} | heap,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert 0 < int(run.stdout) * 1024 < 32e6
