"""Objects of tiles put together: the rules one by one, on views that differ as those of a network do."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from segcli.errors import PredictionError
from segcli.instances import Instances
from segcli.masks import Masks
from segcli.prediction import merging
from segcli.prediction.merging import _components, merge_tiles

SIZE = (100, 180)
LEFT, RIGHT = (0, 0, 100, 100), (80, 0, 180, 100)  # the strip is x = 80 … 99
TILES = np.array([LEFT, RIGHT])

Box = tuple[int, int, int, int]
View = tuple[float, int, list[Box]]  # score, label, rectangles of the mask, in the picture's frame


def seen(tile: Box, views: list[View]) -> Instances:
    """Objects of one tile in its own frame; masks are unions of rectangles, boxes are tight."""
    x, y, x1, y1 = tile
    dense = np.zeros((len(views), y1 - y, x1 - x), bool)
    for mask, (_, _, rectangles) in zip(dense, views, strict=True):
        for a, b, c, d in rectangles:
            mask[max(b - y, 0) : max(d - y, 0), max(a - x, 0) : max(c - x, 0)] = True
    masks = Masks.from_dense(dense)
    labels = np.array([label for _, label, _ in views], np.int32)
    scores = np.array([score for score, _, _ in views], np.float32)
    return Instances((y1 - y, x1 - x), masks.boxes(), labels, scores, masks)


def merged(left: list[View], right: list[View]) -> list[tuple[float, int, list[int], int]]:
    """Score, label, box and area of the objects of the picture, in order."""
    return described(merge_tiles([seen(LEFT, left), seen(RIGHT, right)], TILES, SIZE))


def described(found: Instances) -> list[tuple[float, int, list[int], int]]:
    assert found.masks is not None
    assert found.scores is not None
    return [
        (round(float(found.scores[i]), 3), int(found.labels[i]), found.boxes[i].astype(int).tolist(), area)
        for i, area in enumerate(found.masks.area().tolist())
    ]  # fmt: skip


BAR_LEFT: View = (0.6, 0, [(40, 20, 100, 40)])
BAR_RIGHT: View = (0.8, 0, [(80, 20, 140, 40)])

CASES = [
    pytest.param([], [], [], id="nothing"),
    pytest.param([BAR_LEFT], [], [(0.6, 0, [40, 20, 100, 40], 1200)], id="in one tile only"),
    pytest.param([BAR_LEFT], [BAR_RIGHT], [(0.8, 0, [40, 20, 140, 40], 2000)], id="two halves"),
    pytest.param(
        [BAR_LEFT], [(0.8, 1, [(80, 20, 140, 40)])],
        [(0.8, 1, [80, 20, 140, 40], 1200), (0.6, 0, [40, 20, 100, 40], 1200)], id="two classes",
    ),
    pytest.param(  # the upper one ends at the border of the left tile, the lower one begins in the right one
        [(0.6, 0, [(40, 20, 100, 40)])], [(0.8, 0, [(80, 40, 140, 60)])],
        [(0.8, 0, [80, 40, 140, 60], 1200), (0.6, 0, [40, 20, 100, 40], 1200)],
        id="touching without common pixels",
    ),
    pytest.param(  # an L around a square: the boxes overlap, the masks do not
        [(0.6, 0, [(40, 20, 100, 30), (84, 20, 100, 60)])], [(0.8, 0, [(86, 60, 96, 70), (80, 32, 84, 70)])],
        [(0.8, 0, [80, 32, 96, 70], 252), (0.6, 0, [40, 20, 100, 60], 1080)], id="boxes overlap, masks do not",
    ),
    pytest.param(  # 8 of 12 rows each are shared: IoU 0.5
        [(0.6, 0, [(84, 20, 96, 32)])], [(0.8, 0, [(84, 24, 96, 36)])],
        [(0.8, 0, [84, 24, 96, 36], 144)], id="whole twice: the better one, no union",
    ),
    pytest.param(
        [(0.6, 0, [(84, 20, 96, 32)])], [(0.8, 0, [(84, 25, 96, 37)])],
        [(0.8, 0, [84, 25, 96, 37], 144), (0.6, 0, [84, 20, 96, 32], 144)], id="whole and too different: two",
    ),
    pytest.param(  # small in front of large, both seen whole by both tiles
        [(0.6, 0, [(84, 10, 96, 90)]), (0.5, 0, [(86, 20, 94, 30)])],
        [(0.7, 0, [(84, 10, 96, 90)]), (0.4, 0, [(86, 20, 94, 30)])],
        [(0.7, 0, [84, 10, 96, 90], 960), (0.5, 0, [86, 20, 94, 30], 80)], id="covered but whole: two",
    ),
    pytest.param(  # whole in the left tile; the right one shows the tip with a ragged border, and is surer
        [(0.6, 0, [(40, 20, 90, 40)])], [(0.8, 0, [(80, 18, 92, 41)])],
        [(0.8, 0, [40, 20, 90, 40], 1000)], id="whole and fragment: the whole one as it is",
    ),
    pytest.param(  # the left box stops 4 pixels short of the border although the object goes on
        [(0.6, 0, [(40, 20, 96, 40)])], [(0.5, 0, [(80, 20, 140, 40)])],
        [(0.6, 0, [40, 20, 140, 40], 2000)], id="only seemingly whole: the union",
    ),
    pytest.param(  # one pixel short of the border is as good as at it
        [(0.6, 0, [(40, 20, 99, 40)])], [(0.5, 0, [(81, 19, 140, 40)])],
        [(0.6, 0, [40, 19, 140, 40], 2059)], id="nearly at the border is cut",
    ),
    pytest.param(  # two arms end in the left tile, what joins them lies in the right one
        [(0.6, 0, [(40, 10, 100, 20)]), (0.5, 0, [(40, 60, 100, 90)])],
        [(0.4, 0, [(80, 10, 130, 20), (80, 60, 130, 90), (120, 10, 130, 90)])],
        [(0.6, 0, [40, 10, 130, 90], 40 * 40 + 50 * 40 + 400)], id="a U is one",
    ),
    pytest.param(  # a fragment that the other tile covers by less than half stays
        [(0.6, 0, [(40, 20, 100, 40)])], [(0.8, 0, [(85, 32, 140, 80)])],
        [(0.8, 0, [85, 32, 140, 80], 2640), (0.6, 0, [40, 20, 100, 40], 1200)], id="hardly covered: two",
    ),
    pytest.param(  # the model found a score but no pixel
        [(0.6, 0, []), BAR_LEFT], [(0.3, 0, [])],
        [(0.6, 0, [0, 0, 0, 0], 0), (0.6, 0, [40, 20, 100, 40], 1200), (0.3, 0, [80, 0, 80, 0], 0)],
        id="empty masks stay as they are",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("left", "right", "expected"), CASES)
def test_two_tiles(left: list[View], right: list[View], expected: list[Any]) -> None:
    """Each rule, on two tiles side by side."""
    assert merged(left, right) == expected


@pytest.mark.parametrize(("left", "right", "expected"), CASES)
def test_mirrored(left: list[View], right: list[View], expected: list[Any]) -> None:
    """Left and right change places, so do views; scores, classes and areas remain."""

    def mirror(views: list[View]) -> list[View]:
        return [(s, k, [(180 - c, b, 180 - a, d) for a, b, c, d in r]) for s, k, r in views]

    found = merged(mirror(right), mirror(left))
    assert sorted((s, k, area) for s, k, _, area in found) == sorted(
        (s, k, area) for s, k, _, area in expected
    )


def grid(rows: int, columns: int) -> tuple[NDArray[np.int64], tuple[int, int]]:
    """Tiles of 100 pixels with 20 in common, and the picture's size."""
    corners = [(80 * x, 80 * y) for y in range(rows) for x in range(columns)]
    tiles = np.array([(x, y, x + 100, y + 100) for x, y in corners])
    return tiles, (80 * rows + 20, 80 * columns + 20)


def clipped(tile: NDArray[np.int64], shape: Box) -> list[Box]:
    """What a tile shows of a rectangle: one, or none."""
    a, b = np.maximum(tile[:2], shape[:2])
    c, d = np.minimum(tile[2:], shape[2:])
    return [(int(a), int(b), int(c), int(d))] if a < c and b < d else []


def test_a_road_over_ten_tiles() -> None:
    """Neighbours agree pair by pair; the first and the last never meet."""
    tiles, size = grid(1, 10)
    road = (5, 30, 815, 45)
    found = [
        seen(tuple(tile), [(0.3 + 0.01 * i, 2, clipped(tile, road))])
        for i, tile in enumerate(tiles.tolist())
    ]
    tiles_array = np.array(tiles)
    whole = described(merge_tiles(found, tiles_array, size))
    assert whole == [(0.39, 2, list(road), 810 * 15)]


def noisy_tiles(seed: int) -> tuple[list[Instances], NDArray[np.int64], tuple[int, int]]:
    """Sixteen tiles that show forty rectangles of two classes, each view off by a pixel or so."""
    rng = np.random.default_rng(seed)
    tiles, size = grid(4, 4)
    corners = rng.integers(0, 280, (40, 2))
    shapes = np.concatenate((corners, corners + rng.integers(5, 90, (40, 2))), axis=1)
    found = []
    for tile in tiles:
        views: list[View] = []
        for k, shape in enumerate(shapes):
            box = tuple(int(v) for v in shape + rng.integers(-1, 2, 4))
            part = clipped(tile, box)  # type: ignore[arg-type]
            if part:
                views.append((round(float(rng.choice([0.5, rng.random()])), 2), k % 2, part))
        found.append(seen(tuple(tile.tolist()), views))
    return found, tiles, size


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_tiles_and_objects_does_not_matter(seed: int) -> None:
    """Shuffled, they give the same objects in the same order, to the bit, equal scores or not."""
    found, tiles, size = noisy_tiles(seed)
    expected = merge_tiles(found, tiles, size)
    assert 20 < len(expected) < sum(len(f) for f in found)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(tiles))
    shuffled = [found[t][rng.permutation(len(found[t]))] for t in order]
    again = merge_tiles(shuffled, tiles[order], size)
    assert expected.masks is not None
    assert again.masks is not None
    assert np.array_equal(again.boxes, expected.boxes)
    assert np.array_equal(again.labels, expected.labels)
    assert np.array_equal(again.scores, expected.scores)  # type: ignore[arg-type]
    assert np.array_equal(again.masks.counts, expected.masks.counts)


def test_masks_are_united_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound on working memory changes no mask."""
    found, tiles, size = noisy_tiles(0)
    expected = merge_tiles(found, tiles, size)
    monkeypatch.setattr(merging, "AT_ONCE", 50)
    again = merge_tiles(found, tiles, size)
    assert expected.masks is not None
    assert again.masks is not None
    assert np.array_equal(again.masks.counts, expected.masks.counts)
    assert np.array_equal(again.masks.offsets, expected.masks.offsets)


def test_types_and_frame() -> None:
    """As the model's own results: float32 boxes and scores, int32 labels, the picture's size."""
    found = merge_tiles([seen(LEFT, [BAR_LEFT]), seen(RIGHT, [BAR_RIGHT])], TILES, SIZE)
    assert found.scores is not None
    assert found.masks is not None
    assert (found.boxes.dtype, found.scores.dtype) == (np.float32, np.float32)
    assert found.labels.dtype == np.int32
    assert found.image_size == found.masks.size == SIZE


@pytest.mark.parametrize(
    "lacking",
    [{"masks": None}, {"scores": None}, {"keypoints": np.zeros((1, 17, 3), np.float32)}],
    ids=lambda lacking: next(iter(lacking)),
)
def test_what_cannot_be_merged_is_refused(lacking: dict[str, Any]) -> None:
    """No masks or no scores to compare, or keypoints, which would be lost."""
    found = [replace(seen(LEFT, [BAR_LEFT]), **lacking), seen(RIGHT, [])]
    with pytest.raises(PredictionError, match="predict without --tile"):
        merge_tiles(found, TILES, SIZE)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 30).flatmap(
    lambda n: st.tuples(
        st.just(n),
        st.lists(st.tuples(*[st.integers(0, max(n - 1, 0))] * 2), max_size=40 if n else 0),
    )
))  # fmt: skip
def test_groups(graph: tuple[int, list[tuple[int, int]]]) -> None:
    """What a chain of pairs connects is one group, and nothing else is."""
    count, pairs = graph
    reach = np.eye(count, dtype=bool)
    for a, b in pairs:
        reach[a, b] = reach[b, a] = True
    for middle in range(count):
        reach |= reach[:, [middle]] & reach[[middle]]
    group, groups = _components(count, np.array(pairs, np.int64).reshape(-1, 2))
    assert np.array_equal(group[:, None] == group, reach)
    assert set(group.tolist()) == set(range(groups))


def test_a_long_chain_is_one_group() -> None:
    """Ten thousand links in shuffled order."""
    chain = np.random.default_rng(0).permutation(10_000)
    pairs = np.stack((chain[:-1], chain[1:]), axis=1)
    group, groups = _components(10_000, pairs)
    assert groups == 1
    assert not group.any()


def test_memory_does_not_grow_with_the_picture() -> None:
    """A picture of 300 million pixels takes no more than its objects' run lengths."""
    size, tile = (15_000, 20_000), 1000
    corners = [(x, y) for y in range(0, 14_001, 800) for x in range(0, 19_001, 800)]
    tiles = np.array([(x, y, x + tile, y + tile) for x, y in corners])
    crops = [(np.ones((300, 300), bool), (700, 100)), (np.ones((90, 90), bool), (300, 500))]
    masks = Masks.from_crops(crops, (tile, tile))
    labels, scores = np.zeros(2, np.int32), np.array([0.9, 0.8], np.float32)
    one = Instances((tile, tile), masks.boxes(), labels, scores, masks)
    tracemalloc.start()
    found = merge_tiles([one] * len(tiles), tiles, size)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == 2 * len(tiles)  # the cut ones see nothing of theirs next door
    assert peak < 60e6
