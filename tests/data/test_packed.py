"""Pictures in one block of bytes: nothing is lost, and processes share it."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segcli.annotations import Annotation, Picture
from segcli.data.coco import read_coco
from segcli.data.packed import PackedPictures
from segcli.errors import DataError
from segcli.masks import Masks


def _square(x: int, y: int, size: tuple[int, int], **extra: Any) -> Annotation:
    dense = np.zeros((1, *size), bool)
    dense[0, y : y + 4, x : x + 4] = True
    return Annotation(9, 2, np.array([x, y, 4, 4.0]), 16.0, rle=Masks.from_dense(dense), **extra)


def _polygons(*parts: list[list[float]]) -> Annotation:
    arrays = tuple(np.array(p, np.float64) for p in parts)
    return Annotation("a", 0, np.array([0.1, 0.2, 0.3, 1 / 3]), 0.7, polygons=arrays)


TRIANGLE = [[0.1, 0.2], [1 / 3, 7.25], [5.0, 5.0]]
PICTURES = [
    Picture("x", "ä/b.png", Path("some/ä b.png"), (20, 30), (_polygons(TRIANGLE), _square(1, 2, (20, 30)))),
    Picture(7, "empty.png", None, (5, 6)),
    Picture(8, "crowd.png", Path("c.png"), (9, 8), (_square(0, 0, (9, 8), iscrowd=True),), raw_pixels=True),
    Picture(9, "parts.png", Path("d.png"), (9, 8), (_polygons(TRIANGLE, TRIANGLE[::-1]),)),
]  # fmt: skip


def assert_same(found: Picture, expected: Picture) -> None:
    """Everything but ids, bit by bit."""
    for field in ("file_name", "path", "size", "raw_pixels"):
        assert getattr(found, field) == getattr(expected, field)
    assert len(found.annotations) == len(expected.annotations)
    for a, b in zip(found.annotations, expected.annotations, strict=True):
        assert (a.label, a.area, a.iscrowd) == (b.label, b.area, b.iscrowd)
        assert a.bbox.tobytes() == b.bbox.tobytes()
        assert (a.polygons is None) == (b.polygons is None)
        for p, q in zip(a.polygons or (), b.polygons or (), strict=True):
            assert p.dtype == np.float64
            assert p.tobytes() == q.tobytes()
        if b.rle is not None:
            assert a.rle is not None
            assert a.rle.size == b.rle.size
            np.testing.assert_array_equal(a.rle.counts, b.rle.counts)


def test_no_pictures() -> None:
    """Is a dataset of length 0."""
    packed = PackedPictures.of([])
    assert len(packed) == 0
    assert list(packed) == []
    assert packed.shapes().shape == (0,)


def test_pictures_come_back_as_they_went_in() -> None:
    """Polygons, run lengths, crowds, names in any script, pictures without path or objects; ids are numbered."""
    packed = PackedPictures.of(iter(PICTURES))
    assert len(packed) == 4
    for found, expected in zip(packed, PICTURES, strict=True):
        assert_same(found, expected)
    assert [p.id for p in packed] == [0, 1, 2, 3]
    assert [a.id for p in packed for a in p.annotations] == [0, 1, 2, 3]
    np.testing.assert_allclose(packed.shapes(), [20 / 30, 5 / 6, 9 / 8, 9 / 8])


def test_indices_are_those_of_a_list() -> None:
    """Negative ones, slices, and none beyond the end."""
    packed = PackedPictures.of(PICTURES)
    assert packed[-1].file_name == "parts.png"
    assert [p.file_name for p in packed[1:3]] == ["empty.png", "crowd.png"]
    with pytest.raises(IndexError):
        packed[4]


def test_a_picture_is_not_a_view() -> None:
    """It stays as it was when the block moves, as it does when it is handed to a spawned worker."""
    packed = PackedPictures.of(PICTURES)
    picture = packed[0]
    packed.block.zero_()
    assert_same(picture, PICTURES[0])


def test_datasets_are_kept() -> None:
    """One number per picture."""
    packed = PackedPictures.of(PICTURES, [0, 2, 1, 1])
    assert [packed.dataset_of(i) for i in range(4)] == [0, 2, 1, 1]
    with pytest.raises(ValueError, match="each of 4"):
        PackedPictures.of(PICTURES, [0])


def test_a_mask_of_another_size_is_refused() -> None:
    """Its run lengths would land elsewhere."""
    picture = Picture(1, "a.png", None, (5, 5), (_square(0, 0, (9, 8)),))
    with pytest.raises(DataError, match=r"a\.png: a mask of size \(9, 8\)"):
        PackedPictures.of([picture])


def test_pickled_whole() -> None:
    """By value, as anything else."""
    packed = pickle.loads(pickle.dumps(PackedPictures.of(PICTURES)))
    assert_same(packed[0], PICTURES[0])


def test_a_spawned_process_gets_the_block_and_no_copy() -> None:
    """Torch hands the tensor over by shared memory: what is pickled is small, and the block is shared from then on."""
    picture = Picture(1, "a.png", None, (20, 30), tuple(_polygons(TRIANGLE) for _ in range(2000)))
    packed = PackedPictures.of([picture])
    state = bytes(ForkingPickler.dumps(packed))
    assert packed.nbytes > 200_000
    assert len(state) < 5_000
    assert packed.block.is_shared()
    assert_same(packed[0], picture)


def _write_elsewhere(packed: PackedPictures) -> None:
    packed.column("label")[0] = 77


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
def test_shared_memory_is_one_memory() -> None:
    """What another process writes into a block that was made shared is seen here."""
    packed = PackedPictures.of(PICTURES)
    packed.block.share_memory_()
    process = multiprocessing.get_context("fork").Process(target=_write_elsewhere, args=(packed,))
    process.start()
    process.join()
    assert packed[0].annotations[0].label == 77


@pytest.mark.parametrize("name", ["coco80/instances.json", "nuclei400/val.json"])
def test_real_datasets(shared: Callable[[str], Path], name: str) -> None:
    """Bit by bit, polygons and run lengths."""
    pictures = read_coco(shared(f"data/{name}")).pictures
    for found, expected in zip(PackedPictures.of(pictures), pictures, strict=True):
        assert_same(found, expected)
