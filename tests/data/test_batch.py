"""Batches: padding, what is told about them, and their way from a worker."""

from __future__ import annotations

import pickle

import pytest
import torch

from segcli.data.batch import Batch, Thinned, Unreadable, make_batch
from segcli.data.sample import Sample


def _sample(h: int, w: int, objects: int = 2, **more: object) -> Sample:
    generator = torch.Generator().manual_seed(h * w)
    return Sample(
        image=torch.rand(3, h, w, generator=generator) + 1,
        boxes=torch.rand(objects, 4, generator=generator),
        labels=torch.arange(objects),
        patches=torch.randint(0, 255, (objects, 58, 58), dtype=torch.uint8, generator=generator),
        file_name=f"{h}x{w}.png",
        **more,  # type: ignore[arg-type]
    )


def test_padded_to_the_largest_picture() -> None:
    """With zeros at the right and bottom, to the network's multiple."""
    batch = make_batch(32)([_sample(20, 50), _sample(40, 30)])
    assert batch.images.shape == (2, 3, 64, 64)
    assert batch.sizes == [(20, 50), (40, 30)]
    assert bool((batch.images[0, :, :20, :50] > 0).all())
    assert float(batch.images[0].sum()) == pytest.approx(float(_sample(20, 50).image.sum()))


def test_padded_to_the_square_of_large_scale_jitter() -> None:
    """Whatever the pictures' sizes, so that shapes never change."""
    batch = make_batch(32)([_sample(20, 50, side=96), _sample(96, 30, side=96)])
    assert batch.images.shape == (2, 3, 96, 96)
    assert torch.equal(batch.images[1, :, :, :30], _sample(96, 30).image)
    assert float(batch.images[1, :, :, 30:].abs().sum()) == 0


def test_no_picture_can_be_read() -> None:
    """An empty batch, with names."""
    bad = Unreadable("a.png", "a.png: cut off")
    batch = make_batch(32)([bad])
    assert batch.sizes == []
    assert batch.unreadable == (bad,)
    assert pickle.loads(pickle.dumps(batch)).unreadable == (bad,)


def test_targets() -> None:
    """Keys as tensors for the losses, classes where a dataset does not tell of all, and what was left out."""
    others = torch.rand(40, 4)
    classes = torch.tensor([True, False, True])
    samples = [_sample(8, 8, 3, key=2**63 - 1, others=others), _sample(9, 9, 0, classes=classes)]
    batch = make_batch(1)(samples)
    assert batch.keys == [2**63 - 1, 0]
    assert [int(t["key"]) for t in batch.targets] == batch.keys
    assert batch.targets[0]["key"].dtype == torch.int64
    assert batch.targets[0]["key"].shape == ()
    assert "classes" not in batch.targets[0]
    assert torch.equal(batch.targets[0]["others"], others)
    assert "others" not in batch.targets[1]
    assert torch.equal(batch.targets[1]["classes"], classes)
    assert batch.thinned == (Thinned("8x8.png", 43, 3),)


def test_the_way_from_a_worker() -> None:
    """Everything arrives; of tensors only two are sent, since each takes a file descriptor."""
    classes = torch.tensor([True, False])
    sent = make_batch(32)(
        [
            _sample(20, 50, n, key=n, classes=classes, others=None if n == 1 else torch.rand(n, 4))
            for n in (3, 0, 1)
        ]
        + [Unreadable("b", "b: x")]
    )
    state = sent.__getstate__()
    tensors = [v for v in (state["images"], *state["targets"]) if isinstance(v, torch.Tensor)]
    assert len(tensors) == 2
    got = pickle.loads(pickle.dumps(sent))
    assert isinstance(got, Batch)
    assert torch.equal(got.images, sent.images)
    assert (got.sizes, got.file_names, got.keys) == (sent.sizes, sent.file_names, sent.keys)
    assert got.unreadable == sent.unreadable
    for a, b, n in zip(got.targets, sent.targets, (3, 0, 1), strict=True):
        names = {"boxes", "labels", "masks", "key", "classes"}
        assert set(a) == set(b) == (names if n == 1 else {*names, "others"})
        for name in a:
            assert a[name].dtype == b[name].dtype
            assert torch.equal(a[name], b[name])


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_pinned() -> None:
    """In page-locked memory, with everything else as it was."""
    batch = make_batch(32)([_sample(20, 50, key=5, others=torch.rand(7, 4))]).pin_memory()
    assert batch.images.is_pinned()
    assert batch.targets[0]["others"].shape == (7, 4)
    assert all(v.is_pinned() for v in batch.targets[0].values())
    assert batch.keys == [5]
