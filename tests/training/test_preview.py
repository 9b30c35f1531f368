"""Previews: what is drawn is what the network gets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from segcli.annotations import Annotation, Picture
from segcli.categories import Categories
from segcli.data.augment import Change
from segcli.data.batch import Batch, Unreadable, make_batch
from segcli.data.coco import read_coco
from segcli.data.order import EpochBatches
from segcli.data.sample import Sample, make_sample
from segcli.data.training_set import TrainingSet
from segcli.errors import OutputError
from segcli.images import read_image
from segcli.masks import Masks
from segcli.models.conventions import Preprocess
from segcli.training.preview import draw_batch, restored, target_instances, write_previews

ONE = Categories.from_names(["cell"])
PLAIN = Preprocess(min_size=60, max_size=120)


def _sample(change: Change = Change(), *, H: int = 60, W: int = 80, objects: bool = True) -> Sample:  # noqa: B008
    image = np.full((H, W, 3), (30, 60, 90), np.uint8)
    dense = np.zeros((1, H, W), bool)
    dense[0, 10:40, 10:20] = dense[0, 30:40, 10:50] = True
    mask = Masks.from_dense(dense)
    row = Annotation(1, 0, np.zeros(4), 1.0, rle=mask)
    picture = Picture(1, "é<a>\x1b.png", None, (H, W), (row,) if objects else ())
    return make_sample(picture, image, change, PLAIN)


def test_masks_come_back_from_patches() -> None:
    """The L is an L again, nearly to the pixel, and boxes are those of the targets."""
    sample = _sample(Change(flip=True))
    target = make_batch(1)([sample]).targets[0]
    found = target_instances(target, (60, 80))
    assert found.masks is not None
    expected = np.zeros((60, 80), bool)
    expected[10:40, 60:70] = expected[30:40, 30:70] = True
    assert (found.masks.full(0) ^ expected).sum() <= 12
    np.testing.assert_array_equal(found.boxes, sample.boxes.numpy())
    assert found.labels.tolist() == [0]


def test_no_objects() -> None:
    """Nothing is drawn on the picture."""
    batch = make_batch(1)([_sample(objects=False)])
    assert len(target_instances(batch.targets[0], (60, 80))) == 0
    picture = draw_batch(batch, ONE, PLAIN)
    assert (picture[6:66, 6:86] == (30, 60, 90)).all()


def test_objects_thinner_than_a_pixel_and_at_the_edge() -> None:
    """Are drawn as a pixel, inside the picture."""
    boxes = torch.tensor([[3.1, 3.1, 3.2, 9.0], [79.6, 59.7, 80.0, 60.0], [0.0, 0.0, 80.0, 60.0]])
    target = {
        "boxes": boxes, "labels": torch.ones(3, dtype=torch.int64),
        "masks": torch.full((3, 58, 58), 255, dtype=torch.uint8),
    }  # fmt: skip
    found = target_instances(target, (60, 80))
    assert found.masks is not None
    assert found.masks.area().tolist() == [6, 0, 4800]


@pytest.mark.parametrize(
    "preprocess",
    [
        PLAIN,
        replace(
            PLAIN, resize="pil_bilinear", normalize_first=False, channel_order="bgr", divisor=1.0,
            mean=(103.53, 116.28, 123.675), std=(1.0, 1.0, 1.0),
        ),
    ],
    ids=["torchvision", "caffe"],
)  # fmt: skip
def test_normalisation_is_undone(preprocess: Preprocess) -> None:
    """For every family's mean, std, channel order and divisor."""
    pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    values = pixels.astype(np.float32) / preprocess.divisor
    if preprocess.channel_order == "bgr":
        values = values[..., ::-1]
    values = (values - np.float32(preprocess.mean)) / np.float32(preprocess.std)
    np.testing.assert_array_equal(
        restored(torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1))), preprocess),
        pixels,
    )


def test_padding_is_striped() -> None:
    """And the picture is not; tiles of one batch are of one size."""
    batch = make_batch(32)([_sample(objects=False), _sample(objects=False, H=64, W=64)])
    picture = draw_batch(batch, ONE, PLAIN)
    padding = picture[6 + 60 : 6 + 64, 6 : 6 + 96].reshape(-1, 3)
    assert set(map(tuple, padding.tolist())) == {(52, 52, 52), (74, 74, 74)}


def test_masks_are_drawn_where_the_object_is() -> None:
    """Its pixels change, those far from it do not."""
    plain = draw_batch(make_batch(1)([_sample(objects=False)]), ONE, PLAIN)[6:66, 6:86]
    drawn = draw_batch(make_batch(1)([_sample()]), ONE, PLAIN)[6:66, 6:86]
    changed = (plain != drawn).any(axis=2)
    assert changed[12:38, 12:18].all()
    assert not changed[45:, 55:].any()
    assert not changed[15:25, 25:45].any()  # inside the box, not of the mask
    assert changed[10, 10:50].all()  # the box's upper edge


def test_files(tmp_path: Path) -> None:
    """One per batch with a picture in it, no more than asked for; a folder that is a file is refused."""

    def batches() -> Iterator[Batch]:
        yield make_batch(32)([_sample()])
        yield make_batch(32)([Unreadable("a", "a: cut off")])
        while True:
            yield make_batch(32)([_sample(), _sample()])

    paths = write_previews(batches(), tmp_path / "new", ONE, PLAIN, most=3)
    assert [p.name for p in paths] == ["preview-000.png", "preview-002.png"]
    assert read_image(paths[0]).shape[1] == 96 + 12
    assert sorted(tmp_path.glob("new/*")) == paths
    assert write_previews(batches(), tmp_path / "none", ONE, PLAIN, most=0) == []
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="file"):
        write_previews(batches(), tmp_path / "file", ONE, PLAIN)


def test_large_pictures_are_shown_smaller() -> None:
    """At most 800 pixels a side."""
    image = torch.zeros(3, 64, 3000)
    batch = Batch(
        image[None], [(64, 3000)],
        [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64),
          "masks": torch.zeros(0, 58, 58, dtype=torch.uint8)}],
        ["a.png"],
    )  # fmt: skip
    assert draw_batch(batch, ONE, PLAIN).shape[1] == 800 + 12


@pytest.mark.parametrize("name", ["nuclei400/val.json", "coco80/instances.json"])
def test_real_data(shared: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    """With every kind of change."""
    dataset = read_coco(shared(f"data/{name}"))
    small = Preprocess(min_size=128, max_size=256)
    names = ("flip", "lsj", "copy-paste", "color", "vflip", "rotate90")
    data = TrainingSet(dataset.pictures, small, augment=names, seed=0)
    order = EpochBatches(data.pictures.shapes(), 6, seed=0, epoch=0)
    batches = (make_batch(32)(data.__getitems__(tickets)) for tickets in order)
    paths = write_previews(batches, tmp_path, dataset.categories, small, most=2)
    assert len(paths) == 2
    for path in paths:
        assert read_image(path).std() > 10
