"""The fused preprocessing against segcli's own on a CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from segcli.models.conventions import Preprocess
from segcli.models.inference.preprocess_kernel import layout, normalised_values, preprocess
from segcli.preprocess import collate, prepare, resized_size

# the last one is a strip that keeps one row
SIZES = [(20, 31), (31, 20), (1, 1), (7, 90), (64, 48), (33, 1)]


def pictures(sizes: list[tuple[int, int]]) -> list[np.ndarray]:
    """Noise, with black and white."""
    rng = np.random.default_rng(len(sizes))
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def by_kernel(
    device: str, images: list[np.ndarray], resized: list[tuple[int, int]], shape: tuple[int, ...],
    how: Preprocess, dtype: torch.dtype = torch.float32,
) -> Tensor:  # fmt: skip
    """A batch on the CPU; it held NaN before."""
    flat = torch.from_numpy(np.concatenate([image.reshape(-1) for image in images]))
    table = layout([image.shape[:2] for image in images], resized)
    batch = torch.full(shape, torch.nan, dtype=dtype, device=device)
    batch = batch.contiguous(memory_format=torch.channels_last)
    values = normalised_values(how.mean, how.std)
    found = preprocess(flat.to(device), table.to(device), values.to(device), batch)
    assert found is batch
    return found.cpu()


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("limits", [(8, 40), (24, 60), (40, 50)], ids=["less", "same", "more"])
def test_equals_prepare(device: str, size: tuple[int, int], limits: tuple[int, int]) -> None:
    """Smaller and larger, padded to 32: within 2e-6 of the values' size, which is about 2, and zeros beside them."""
    how = Preprocess(*limits)
    images = pictures([size])
    prepared = prepare(images[0], how)
    expected, resized = collate([prepared.tensor], 32)
    assert resized == [resized_size(size, how)]
    found = by_kernel(device, images, resized, tuple(expected.shape), how)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=2e-6)
    assert torch.equal(found == 0, expected == 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_batch(device: str, dtype: torch.dtype) -> None:
    """Pictures of different sizes in one launch, in the network's type; one rounding at the end."""
    how = Preprocess(20, 40)
    images = pictures(SIZES[:3])
    tensors = [prepare(image, how).tensor for image in images]
    expected, resized = collate(tensors, 32)
    found = by_kernel(device, images, resized, tuple(expected.shape), how, dtype)
    assert found.dtype == dtype
    torch.testing.assert_close(
        found.float(), expected, atol=2e-6, rtol=max(torch.finfo(dtype).eps, 2e-6)
    )


def test_the_same_size_is_exact(device: str) -> None:
    """Nothing is interpolated, so the values are the same bits."""
    how = Preprocess(24, 40)
    images = pictures([(24, 33)])
    expected, resized = collate([prepare(images[0], how).tensor], 8)
    assert resized == [(24, 33)]
    assert torch.equal(by_kernel(device, images, resized, tuple(expected.shape), how), expected)


def test_a_wide_batch(device: str) -> None:
    """A row of more values than a program makes."""
    how = Preprocess(2, 700)
    images = pictures([(4, 1390)])
    expected, resized = collate([prepare(images[0], how).tensor], 32)
    found = by_kernel(device, images, resized, tuple(expected.shape), how)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=2e-6)


def test_bad_input(device: str) -> None:
    """A batch in another layout, or a table of another length, is refused."""
    bytes_, values = torch.zeros(3, dtype=torch.uint8), normalised_values((0.5,) * 3, (1.0,) * 3)
    with pytest.raises(ValueError, match="channels last"):
        preprocess(bytes_, layout([(1, 1)], [(1, 1)]), values, torch.zeros(1, 3, 4, 8))
    batch = torch.zeros(2, 3, 4, 8).contiguous(memory_format=torch.channels_last)
    with pytest.raises(ValueError, match=r"expected int64 \(2, 5\)"):
        preprocess(bytes_, layout([(1, 1)], [(1, 1)]), values, batch)
