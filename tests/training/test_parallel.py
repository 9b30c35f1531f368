"""What of a batch goes where the network is."""

from __future__ import annotations

import torch
from torch import Tensor

from segcli.data.batch import Batch
from segcli.training.parallel import blank_batch, to_device


def _batch() -> Batch:
    target: dict[str, Tensor] = {
        "boxes": torch.tensor([[1.0, 2, 30, 40]]),
        "labels": torch.tensor([1]),
        "masks": torch.ones(1, 58, 58, dtype=torch.uint8),
        "key": torch.tensor(17),
        "classes": torch.tensor([True, True]),
        "others": torch.tensor([[3.0, 4, 50, 60], [5, 6, 7, 8]]),
    }
    return Batch(torch.rand(1, 3, 64, 96), [(64, 96)], [target], ["a.png"], keys=[17])


def test_keys_stay_with_the_host() -> None:
    """The host seeds generators with them, and would wait for a device; all else goes there, pictures channels last."""
    batch = _batch()
    images, (target,) = to_device(batch, torch.device("meta"))
    assert images.is_meta
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert sorted(target) == ["boxes", "classes", "labels", "masks", "others"]
    assert all(value.is_meta for value in target.values())
    assert batch.keys == [17]
    assert batch.targets[0]["key"].device.type == "cpu"


def test_keys_stay_the_batchs_own_in_a_worker() -> None:
    """They come out of a worker process as plain numbers too."""
    found = Batch(torch.zeros(0), [], [], [])
    found.__setstate__(_batch().__getstate__())
    assert found.keys == [17]
    assert all(type(key) is int for key in found.keys)


def test_a_blank_picture_stands_in_for_none() -> None:
    """Where no picture of a process's batch can be read it still has something to compute gradients of."""
    blank = blank_batch(Batch(torch.zeros(0, 3, 0, 0), [], [], []))
    images, (target,) = to_device(blank, torch.device("cpu"))
    assert images.shape == (1, 3, *blank.sizes[0])
    assert not images.any()
    assert [len(target[name]) for name in ("boxes", "labels", "masks")] == [0, 0, 0]
    assert blank.keys == [0]
