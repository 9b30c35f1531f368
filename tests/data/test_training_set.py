"""Training samples: geometry of pictures, boxes and masks under augmentation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segcli.annotations import Annotation, Dataset, Picture
from segcli.categories import Categories
from segcli.data.augment import Change, check_names, choose
from segcli.data.order import EpochBatches
from segcli.data.training_set import (
    Sample,
    Ticket,
    TrainingSet,
    Unreadable,
    box_sides,
    make_batch,
    make_sample,
)
from segcli.errors import UsageError
from segcli.masks import Masks
from segcli.models.conventions import Preprocess

PLAIN = Preprocess(min_size=60, max_size=200, mean=(0, 0, 0), std=(1, 1, 1))


def _annotation(x: int, y: int, w: int, h: int, **extra: object) -> Annotation:
    dense = np.zeros((1, 60, 80), bool)
    dense[0, y : y + h, x : x + w] = True
    return Annotation(
        id=1,
        label=int(extra.get("label", 0)),  # type: ignore[call-overload]
        bbox=np.array([x, y, w, h], np.float64),
        area=float(w * h),
        iscrowd=bool(extra.get("iscrowd", False)),
        rle=Masks.from_dense(dense),
    )


def _picture(*annotations: Annotation, path: Path | None = None) -> Picture:
    return Picture(1, "a.png", path, (60, 80), annotations)


IMAGE = np.zeros((60, 80, 3), np.uint8)
IMAGE[10:30, 5:25] = 255


def test_a_picture_without_objects() -> None:
    """Gives empty targets of the right shapes."""
    sample = make_sample(_picture(), IMAGE, Change(), PLAIN)
    assert sample.boxes.shape == (0, 4)
    assert sample.labels.shape == (0,)
    assert sample.patches.shape == (0, 58, 58)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scale", [1.0, 0.75, 1.35])
def test_boxes_follow_the_pixels(flip: bool, scale: float) -> None:
    """The white square in the picture and its box stay together under flip and scale."""
    sample = make_sample(_picture(_annotation(5, 10, 20, 20)), IMAGE, Change(flip, scale), PLAIN)
    bright = (sample.image[0] > 0.5).nonzero()
    y0, x0 = bright.amin(0).tolist()
    y1, x1 = (bright.amax(0) + 1).tolist()
    assert sample.boxes[0].tolist() == pytest.approx([x0, y0, x1, y1], abs=1.01)
    assert sample.image.shape[1] == int(60 * scale)


def test_masks_are_flipped_with_the_picture() -> None:
    """An L is an L the other way round."""
    dense = np.zeros((1, 60, 80), bool)
    dense[0, 10:30, 5:10] = True
    dense[0, 25:30, 5:25] = True
    shape = Annotation(1, 0, np.array([5.0, 10, 20, 20]), 175.0, rle=Masks.from_dense(dense))
    straight, mirrored = (
        make_sample(_picture(shape), IMAGE, Change(flip), PLAIN).patches for flip in (False, True)
    )
    assert torch.equal(mirrored, straight.flip(2))
    assert not torch.equal(mirrored, straight)


def test_crowds_and_objects_without_pixels_are_left_out() -> None:
    """Labels count from 1, row 0 being background."""
    empty = Annotation(2, 0, np.zeros(4), 0.0, rle=Masks.from_dense(np.zeros((1, 60, 80), bool)))
    picture = _picture(
        _annotation(0, 0, 9, 9, iscrowd=True), empty, _annotation(5, 10, 20, 20, label=2)
    )
    sample = make_sample(picture, IMAGE, Change(), PLAIN)
    assert sample.labels.tolist() == [3]
    dataset = Dataset(Path("x.json"), None, (picture,), Categories.from_names("abc"))
    assert box_sides(dataset, PLAIN) == [0.0, 20.0]


def test_a_broken_picture_does_not_stop_its_batch(tmp_path: Path) -> None:
    """It is named, and the others train on."""
    Image.fromarray(IMAGE).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes((tmp_path / "good.png").read_bytes()[:60])
    pictures = [
        _picture(_annotation(5, 10, 20, 20), path=tmp_path / name)
        for name in ("good.png", "bad.png")
    ]
    data = TrainingSet(pictures, PLAIN, augment=(), seed=0)
    samples = [data[Ticket(0, 0)], data[Ticket(0, 1)]]
    assert isinstance(samples[0], Sample)
    assert isinstance(samples[1], Unreadable)
    batch = make_batch(32)(samples)
    assert batch.images.shape == (1, 3, 64, 96)
    assert [u.file_name for u in batch.unreadable] == ["a.png"]
    assert make_batch(32)(samples[1:]).sizes == []


def test_changes_depend_on_seed_epoch_and_place_alone() -> None:
    """So any number of workers gives the same training; a batch shares its scale, so that padding stays small."""
    both = ("flip", "scale")
    first = choose(both, seed=1, epoch=2, index=3, batch=4)
    assert first == choose(both, seed=1, epoch=2, index=3, batch=4)
    batch = [choose(both, seed=1, epoch=2, index=i, batch=4) for i in range(50)]
    assert {c.flip for c in batch} == {True, False}
    assert {c.scale for c in batch} == {first.scale}
    scales = {choose(both, seed=1, epoch=2, index=3, batch=b).scale for b in range(50)}
    assert len(scales) == 50
    assert 0.75 <= min(scales) < 0.85
    assert 1.2 < max(scales) <= 1.35
    assert choose((), seed=1, epoch=2, index=3, batch=4) == Change()


def test_unknown_augmentations_are_refused() -> None:
    """With the known ones in the message."""
    check_names(("flip",))
    with pytest.raises(UsageError, match="expected some of flip, scale"):
        check_names(("flip", "mosaic"))


@pytest.mark.parametrize(("pictures", "batch_size"), [(1, 1), (10, 4), (3, 8), (8, 8)])
def test_every_picture_once_an_epoch_in_full_batches(pictures: int, batch_size: int) -> None:
    """The last batch is filled from the start of the shuffle; orders differ by epoch and repeat by seed."""
    shapes = [1.0] * pictures
    batches = list(EpochBatches(shapes, batch_size, seed=5, epoch=0))
    assert len(batches) == len(EpochBatches(shapes, batch_size, seed=5, epoch=0))
    assert all(len(b) == batch_size for b in batches)
    assert {t.index for b in batches for t in b} == set(range(pictures))
    assert batches == list(EpochBatches(shapes, batch_size, seed=5, epoch=0))
    if pictures >= 8:
        assert batches != list(EpochBatches(shapes, batch_size, seed=5, epoch=1))


def test_pictures_of_like_shape_share_a_batch() -> None:
    """Of 32 wide and 32 tall pictures, mixed at random, at most one batch of eight holds both."""
    shapes = [0.5, 2.0] * 32
    batches = list(EpochBatches(shapes, 8, seed=0, epoch=0))
    mixed = [b for b in batches if len({shapes[t.index] for t in b}) > 1]
    assert len(mixed) <= 1
    assert {t.batch for b in batches for t in b} == set(range(8))
