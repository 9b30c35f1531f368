"""One picture after every kind of change: boxes are tight on masks, masks are where the pixels are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from segcli.annotations import Annotation, Picture
from segcli.data.augment import (
    AUGMENTATIONS,
    Change,
    ColorChange,
    CropChange,
    Jitter,
    Paste,
    choose,
)
from segcli.data.copy_paste import Source
from segcli.data.crops import objects_of
from segcli.data.sample import make_sample, sample_key
from segcli.masks import Masks
from segcli.models.conventions import Preprocess

PLAIN = Preprocess(min_size=60, max_size=200, mean=(0, 0, 0), std=(1, 1, 1))
EVERYTHING = tuple(n for n in AUGMENTATIONS if n != "lsj")


def _picture(dense: np.ndarray, labels: list[int] | None = None, crowd: bool = False) -> Picture:
    """Objects of bool (G, H, W)."""
    masks = Masks.from_dense(dense)
    objects = [
        Annotation(
            i, labels[i] if labels else 0, np.zeros(4), 0.0, iscrowd=crowd, rle=masks[i]
        )
        for i in range(len(dense))
    ]  # fmt: skip
    return Picture(1, "a.png", None, (dense.shape[1], dense.shape[2]), tuple(objects))


def _ell(H: int = 60, W: int = 80) -> np.ndarray:
    """An L, which no flip or turn leaves as it is."""
    dense = np.zeros((1, H, W), bool)
    top, low, bottom = (round(v * H) for v in (0.35, 0.52, 0.62))
    left, middle, right = (round(v * W) for v in (0.2, 0.3, 0.62))
    dense[0, top:bottom, left:middle] = True
    dense[0, low:bottom, left:right] = True
    return dense


def _shown(dense: np.ndarray) -> np.ndarray:
    """White where the objects are."""
    return np.repeat(dense.any(0)[..., None], 3, 2).astype(np.uint8) * np.uint8(255)


def _mask_of(sample_patch: torch.Tensor, h: int, w: int) -> np.ndarray:
    """The patch at (h, w) pixels, by its nearest cells."""
    cells = sample_patch[1:-1, 1:-1].numpy()
    rows = ((np.arange(h) + 0.5) * 56 / h).astype(int)
    columns = ((np.arange(w) + 0.5) * 56 / w).astype(int)
    return np.asarray(cells[rows][:, columns] > 127)


CHANGES = {
    "none": Change(),
    "flip": Change(flip=True),
    "vflip": Change(vflip=True),
    "one turn": Change(turns=1),
    "two turns": Change(turns=2),
    "three turns, flipped": Change(flip=True, turns=3),
    "scale": Change(scale=1.35),
    "crop": Change(crop=CropChange(0.7, (0.2, 0.9))),
    "crop, flipped, turned": Change(
        flip=True, vflip=True, turns=1, crop=CropChange(0.6, (0.5, 0.5))
    ),
    "jitter, small": Change(lsj=Jitter(0.4, (0.5, 0.5))),
    "jitter, large": Change(lsj=Jitter(1.9, (0.3, 0.6)), flip=True),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("size", [(60, 80), (61, 83), (200, 70)])
def test_masks_lie_on_the_pixels(change: Change, size: tuple[int, int]) -> None:
    """The white L in the picture is the mask, and its box is tight."""
    dense = _ell(*size)
    sample = make_sample(_picture(dense), _shown(dense), change, PLAIN)
    bright = sample.image[0].numpy() > 0.5
    ys, xs = np.nonzero(bright)
    x0, y0, x1, y1 = sample.boxes[0].tolist()
    side = max(sample.image.shape[1] / size[0], 1.0)  # one pixel of the picture, in the input
    assert [x0, y0, x1, y1] == pytest.approx(
        [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], abs=side + 0.01
    )
    drawn = np.zeros_like(bright)
    a, b, c, d = (round(v) for v in (x0, y0, x1, y1))
    drawn[b:d, a:c] = _mask_of(sample.patches[0], d - b, c - a)
    outline = 2 * (d - b + c - a)  # half a pixel of rounding all around, times the enlargement
    assert (drawn ^ bright).sum() <= outline * side


@pytest.mark.parametrize("name", [(), ("flip", "scale"), EVERYTHING, ("lsj", "copy-paste")])
def test_no_objects(name: tuple[str, ...]) -> None:
    """A picture without any, and one of only crowds, give empty targets of the right shapes."""
    crowd = _picture(_ell(), crowd=True)
    for picture in (_picture(np.zeros((0, 60, 80), bool)), crowd):
        source = Source(_shown(_ell()), objects_of(picture))
        for index in range(10):
            change = choose(name, seed=0, epoch=0, index=index, batch=0)
            sample = make_sample(picture, _shown(_ell()), change, PLAIN, other=source)
            assert sample.boxes.shape == (0, 4)
            assert sample.boxes.dtype == torch.float32
            assert sample.labels.shape == (0,)
            assert sample.patches.shape == (0, 58, 58)


@pytest.mark.parametrize("names", [EVERYTHING, ("flip", "lsj", "copy-paste", "color")])
@pytest.mark.parametrize("size", [(1, 1), (1, 90), (47, 33), (120, 160)])
def test_all_changes_together_on_awkward_sizes(
    names: tuple[str, ...], size: tuple[int, int]
) -> None:
    """Boxes lie inside the picture with an area; patches reach all four sides of their boxes."""
    rng = np.random.default_rng(0)
    for index in range(25):
        dense = np.zeros((5, *size), bool)
        for plane in dense:
            y, x = (int(rng.integers(0, side)) for side in size)
            plane[y : y + int(rng.integers(1, 30)), x : x + int(rng.integers(1, 30))] = True
        picture = _picture(dense, labels=[0, 1, 2, 3, 4])
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        change = choose(names, seed=4, epoch=0, index=index, batch=index)
        other = Source(image[::-1], objects_of(_picture(dense[:, ::-1])))
        sample = make_sample(picture, image, change, PLAIN, other=other)
        h, w = sample.image.shape[1:]
        boxes = sample.boxes.numpy()
        assert len(boxes) == len(sample.labels) == len(sample.patches)
        assert (boxes >= 0).all()
        assert (boxes <= np.array([w, h, w, h]) + 1e-3).all()
        assert ((boxes[:, 2:] - boxes[:, :2]) > 0).all()
        cells = sample.patches[:, 1:-1, 1:-1] > 0
        for edge in (cells[:, 0], cells[:, -1], cells[:, :, 0], cells[:, :, -1]):
            assert edge.any(dim=1).all()


def test_the_same_twice() -> None:
    """Bit by bit; and the picture that was read is not written to."""
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    before = image.copy()
    picture = _picture(np.concatenate((_ell(), _ell()[:, ::-1])))
    for index in range(8):
        change = choose(EVERYTHING, seed=0, epoch=0, index=index, batch=0)
        other = Source(image, objects_of(picture))
        one, two = (make_sample(picture, image, change, PLAIN, other=other) for _ in range(2))
        assert torch.equal(one.image, two.image)
        assert torch.equal(one.boxes, two.boxes)
        assert torch.equal(one.patches, two.patches)
    np.testing.assert_array_equal(image, before)


def test_pasted_objects_are_scaled_to_the_picture() -> None:
    """From a picture of twice the size they come at half of it; without another picture nothing is pasted."""
    own, other = _picture(np.zeros((0, 60, 80), bool)), _ell(120, 160)
    seed = next(s for s in range(99) if np.random.Generator(np.random.PCG64(s)).random(1) < 0.5)
    change = Change(paste=Paste(False, 1.0, (0.0, 0.0), seed))
    source = Source(_shown(other), objects_of(_picture(other)))
    sample = make_sample(own, np.zeros((60, 80, 3), np.uint8), change, PLAIN, other=source)
    assert sample.boxes[0].tolist() == pytest.approx([16, 21, 49.5, 37], abs=0.6)
    assert make_sample(own, np.zeros((60, 80, 3), np.uint8), change, PLAIN).boxes.shape == (0, 4)


def test_color_changes_pixels_alone() -> None:
    """Boxes and patches stay."""
    image = np.full((60, 80, 3), (120, 80, 60), np.uint8)
    plain = make_sample(_picture(_ell()), image, Change(), PLAIN)
    toned = make_sample(_picture(_ell()), image, Change(color=ColorChange(1.2, 0.9, 0.5)), PLAIN)
    assert not torch.allclose(plain.image, toned.image, atol=0.02)
    assert torch.equal(plain.boxes, toned.boxes)
    assert torch.equal(plain.patches, toned.patches)


def _two_thousand() -> Picture:
    dense = [(np.ones((3, 3), bool), (4 * (i % 50), 4 * (i // 50))) for i in range(2000)]
    masks = Masks.from_crops(dense, (160, 200))
    objects = [Annotation(i, i % 7, np.zeros(4), 9.0, rle=masks[i]) for i in range(2000)]
    return Picture(1, "many.png", None, (160, 200), tuple(objects))


def test_two_thousand_objects() -> None:
    """All are there; or as many as allowed, chosen by the key, in their order, and the boxes of the rest."""
    picture, image = _two_thousand(), np.zeros((160, 200, 3), np.uint8)
    whole = make_sample(picture, image, Change(), PLAIN)
    assert len(whole.boxes) == 2000
    assert whole.others is None
    some = [
        make_sample(picture, image, Change(), PLAIN, max_instances=100, key=k) for k in (1, 1, 2)
    ]
    assert [len(s.boxes) for s in some] == [100] * 3
    assert torch.equal(some[0].boxes, some[1].boxes)
    assert not torch.equal(some[0].boxes, some[2].boxes)
    rows = [whole.boxes.tolist().index(b) for b in some[0].boxes.tolist()]
    assert rows == sorted(rows)
    assert [int(whole.labels[r]) for r in rows] == some[0].labels.tolist()
    for sample in some:
        assert sample.others is not None
        assert sample.others.dtype == torch.float32
        assert _corners(sample.boxes, sample.others) == _corners(whole.boxes)
    assert make_sample(picture, image, Change(), PLAIN, max_instances=2000).others is None


def _corners(*boxes: torch.Tensor) -> list[list[float]]:
    """Rows in an order that is nobody's choice."""
    rows: list[list[float]] = torch.cat(boxes).tolist()
    return sorted(rows)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("pasted", [False, True])
def test_objects_left_out_lie_where_they_would(change: Change, pasted: bool) -> None:
    """Whatever is cut, pasted or turned: boxes of the chosen ones and of the others are those of all."""
    dense = np.zeros((12, 60, 80), bool)
    for i, plane in enumerate(dense):
        plane[5 * (i % 4) + 8 : 5 * (i % 4) + 30, 6 * i : 6 * i + 9] = True
    picture, image = _picture(dense), _shown(dense)
    if pasted:
        change = replace(change, paste=Paste(True, 1.0, (0.0, 0.0), 3))
    more: dict[str, Any] = {"other": Source(image, objects_of(picture)), "key": 5}
    whole = make_sample(picture, image, change, PLAIN, **more)
    some = make_sample(picture, image, change, PLAIN, max_instances=2, **more)
    assert len(whole.boxes) > 3
    assert len(some.boxes) == 2
    assert some.others is not None
    assert _corners(some.boxes, some.others) == _corners(whole.boxes)
    assert torch.equal(some.image, whole.image)


def test_keys() -> None:
    """63 bits, the same on every machine, different for different places."""
    assert sample_key(0, 1, 2, 3, 0) == 1440981188258181488
    keys = {sample_key(0, e, i, b, 0) for e in range(9) for i in range(9) for b in range(9)}
    assert len(keys) == 729
    assert all(0 <= k < 2**63 for k in keys)
