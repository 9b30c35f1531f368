"""Training samples: geometry of pictures, boxes and masks under augmentation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from segcli.annotations import Annotation, Dataset, Picture
from segcli.categories import Categories
from segcli.data.augment import Change
from segcli.data.batch import Batch
from segcli.data.order import EpochBatches
from segcli.data.packed import PackedPictures
from segcli.data.training_set import (
    Sample,
    Ticket,
    TrainingSet,
    Unreadable,
    box_sides,
    make_batch,
    make_sample,
)
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
    assert box_sides(PackedPictures.of(dataset.pictures), PLAIN) == [0.0, 20.0]


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


def _folder_of_pictures(folder: Path) -> list[Picture]:
    """Good ones, one without objects, one of only crowds, one that is cut off, and one of 2,000 objects."""
    rng = np.random.default_rng(0)
    pictures = []
    for index in range(12):
        pixels = rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)
        path = folder / f"{index}.png"
        Image.fromarray(pixels).save(path)
        objects = [_annotation(int(x), int(y), 12, 9) for x, y in rng.integers(0, 50, (3, 2))]
        pictures.append(Picture(index, path.name, path, (60, 80), tuple(objects)))
    pictures[3] = replace(pictures[3], annotations=())
    pictures[5] = replace(pictures[5], annotations=(_annotation(5, 5, 20, 20, iscrowd=True),))
    (folder / "7.png").write_bytes((folder / "7.png").read_bytes()[:200])
    many = [_annotation(int(x), int(y), 3, 2) for x, y in rng.integers(0, 50, (2000, 2))]
    pictures[9] = replace(pictures[9], annotations=tuple(many))
    return pictures


def _batches(data: TrainingSet, workers: int, batch_size: int = 4) -> list[Batch]:
    order = EpochBatches(data.pictures.shapes(), batch_size, seed=1, epoch=0)
    loader = DataLoader(
        data, batch_sampler=order, num_workers=workers, collate_fn=make_batch(32),
        multiprocessing_context="fork" if workers else None,
    )  # fmt: skip
    return list(loader)


def _assert_equal(one: Batch, other: Batch) -> None:
    assert torch.equal(one.images, other.images)
    assert (one.sizes, one.file_names, one.keys) == (other.sizes, other.file_names, other.keys)
    assert (one.unreadable, one.thinned) == (other.unreadable, other.thinned)
    for a, b in zip(one.targets, other.targets, strict=True):
        assert set(a) == set(b)
        assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    "names", [("flip", "scale", "copy-paste", "color", "crop", "rotate90"), ("lsj", "copy-paste")]
)
def test_any_number_of_workers_gives_the_same(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Bit by bit; a corrupt picture, one of 2,000 objects and ones without any do not stop an epoch."""
    pictures = _folder_of_pictures(tmp_path)
    data = TrainingSet(pictures, PLAIN, augment=names, seed=2, max_instances=50)
    alone, shared = _batches(data, 0), _batches(data, 2)
    assert len(alone) == len(shared) == 3
    for one, other in zip(alone, shared, strict=True):
        _assert_equal(one, other)
    assert sorted(n for b in alone for n in b.file_names) == sorted(
        p.file_name for p in pictures if p.file_name != "7.png"
    )
    assert [u.file_name for b in alone for u in b.unreadable] == ["7.png"]
    assert all(len(t["labels"]) <= 50 for b in alone for t in b.targets)
    assert [t.file_name for b in alone for t in b.thinned if t.file_name == "9.png"] == ["9.png"]


def test_a_batch_gives_what_its_tickets_give_one_by_one(tmp_path: Path) -> None:
    """That pictures are decoded once for two uses changes nothing."""
    data = TrainingSet(_folder_of_pictures(tmp_path), PLAIN, augment=("copy-paste",), seed=2)
    for tickets in EpochBatches(data.pictures.shapes(), 4, seed=1, epoch=0):
        together = make_batch(32)(data.__getitems__(tickets))
        _assert_equal(make_batch(32)([data[t] for t in tickets]), together)


def test_a_broken_partner_is_nobodys_partner(tmp_path: Path) -> None:
    """Nothing is pasted from it; it is named when its own turn comes."""
    data = TrainingSet(_folder_of_pictures(tmp_path), PLAIN, augment=("copy-paste",), seed=2)
    for index in range(7):
        found = data[Ticket(0, index, partner=7)]
        plain = data[Ticket(0, index)]
        assert isinstance(found, Sample)
        assert isinstance(plain, Sample)
        assert torch.equal(found.image, plain.image)
        assert torch.equal(found.boxes, plain.boxes)


def test_keys_tell_samples_apart(tmp_path: Path) -> None:
    """By seed, epoch, step, picture and repetition; not by partner."""
    pictures = _folder_of_pictures(tmp_path)[:2]
    one, two = (TrainingSet(pictures, PLAIN, augment=(), seed=s) for s in (1, 2))
    tickets = [Ticket(0, 0), Ticket(1, 0), Ticket(0, 1), Ticket(0, 0, 1), Ticket(0, 0, 0, None, 1)]
    keys = [data[t].key for data in (one, two) for t in tickets]  # type: ignore[union-attr]
    assert len(set(keys)) == 10
    assert one[Ticket(0, 0, partner=1)].key == keys[0]  # type: ignore[union-attr]


def test_datasets_tell_their_classes(tmp_path: Path) -> None:
    """Each picture carries the row of its dataset."""
    pictures = PackedPictures.of(_folder_of_pictures(tmp_path)[:2], [1, 0])
    classes = np.array([[True, True, False], [True, False, True]])
    data = TrainingSet(pictures, PLAIN, augment=(), seed=0, classes=classes)
    batch = make_batch(32)([data[Ticket(0, 0)], data[Ticket(0, 1)]])
    assert [t["classes"].tolist() for t in batch.targets] == [
        [True, False, True],
        [True, True, False],
    ]


def test_pictures_of_other_datasets_are_no_partners(tmp_path: Path) -> None:
    """Their objects may be of classes that this picture's dataset tells nothing of."""
    pictures = PackedPictures.of(_folder_of_pictures(tmp_path)[:2], [0, 1])
    classes = np.array([[True, True, False], [True, False, True]])
    data = TrainingSet(pictures, PLAIN, augment=("copy-paste",), seed=0, classes=classes)
    for epoch in range(6):
        found, plain = data[Ticket(epoch, 0, partner=1)], data[Ticket(epoch, 0)]
        assert isinstance(found, Sample)
        assert isinstance(plain, Sample)
        assert torch.equal(found.image, plain.image)
