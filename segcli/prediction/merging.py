"""Objects of overlapping tiles, put together to objects of the picture: no seams, no doubles.

Two tiles show their common strip both, so an object there has two views, one in each tile. The rules:

1. **Same object?** Views of the same class in two tiles are compared inside the common strip, mask with mask; boxes
   only say which pairs are worth comparing. They belong together
   - where the masks agree: IoU inside the strip ≥ 0.5; or
   - where one is a fragment, that is, cut off by its tile's border on the other tile's side, and the other covers
     half of the fragment's part in the strip. (The two arms of a U end in one tile as two fragments; the bottom of
     the U in the other tile covers each, though neither agrees with it alone.)
   Different objects that touch share no pixels, so they stay apart however their boxes lie.
2. **Chains.** What belongs to the same belongs together: a road over ten tiles is one object.
3. **What remains of a group.** A view that no inner border cuts has seen the object whole; the best one of them by
   score stands for the group, and fragments and second views of it are dropped, not blended. It must fit the others,
   though: where over a tenth of the group lies outside its tile, it was no whole view. Without one, the mask is the
   union of all and the box the union of the boxes. The score is the group's highest in any case.

"Cut" is read off the box: within 1 % of the tile's side from a border that is not the picture's own. The result does
not depend on the order of tiles or objects. Without overlap there is nothing to compare: fragments stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from segcli.errors import PredictionError
from segcli.instances import Instances
from segcli.masks import Masks
from segcli.rle_sets import AT_ONCE, Spans

AGREEMENT = 0.5  # IoU in the strip, or cover of a fragment, from which two views show one object
_OUTSIDE = 0.1  # share of a group beyond a whole view's tile at which it was none
_NEAR = 0.01  # of the tile's side: how close to a border the box of a cut object ends at least
_NEAR_PIXELS = 2.0

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class _Views:
    """N objects of T tiles in the picture's frame, tile after tile.

    Attributes:
        spans: the masks.
        bounds: int64 (N, 4), tight xyxy boxes of the masks.
        boxes: float32 (N, 4), xyxy as the model gave them.
        labels: int32 (N,).
        scores: float32 (N,).
        tile: int64 (N,), which tile.
        cut: bool (N, 4): ends at its tile's left, top, right, bottom border, and that is not the picture's.
        tiles: int64 (T, 4), xyxy.
        offsets: int64 (T + 1,): the objects of tile t are `offsets[t]:offsets[t + 1]`.
    """

    spans: Spans
    bounds: Ints
    boxes: NDArray[np.float32]
    labels: NDArray[np.int32]
    scores: NDArray[np.float32]
    tile: Ints
    cut: Bools
    tiles: Ints
    offsets: Ints


def merge_tiles(found: Sequence[Instances], tiles: Ints, size: tuple[int, int]) -> Instances:
    """Objects of the picture from those of its tiles, best score first.

    Args:
        found: what was found on each tile, in its own frame, with masks and scores.
        tiles: int64 (T, 4), where the tiles lie: xyxy in pixels, the far edges exclusive.
        size: (H, W) of the picture.

    Raises:
        PredictionError: a tile's objects have no masks or no scores, or have keypoints.
    """
    views = _gather(found, tiles, size)
    group, groups = _components(len(views.labels), _same_objects(views))
    keep = _contributing(views, group, groups)
    scores = np.zeros(groups, np.float32)
    np.maximum.at(scores, group, views.scores)
    labels = np.zeros(groups, np.int32)
    labels[group] = views.labels
    boxes = _united_boxes(views.boxes[keep], group[keep], groups)
    order = _best_first(scores, labels, boxes)
    place = np.empty(groups, np.int64)
    place[order] = np.arange(groups)
    masks = _united_masks(views.spans, keep, place[group[keep]], groups)
    return Instances(size, boxes[order], labels[order], scores[order], masks)


def _gather(found: Sequence[Instances], tiles: Ints, size: tuple[int, int]) -> _Views:
    """Move all objects to the picture's frame."""
    parts, boxes, scores = [], [np.zeros((0, 4), np.float32)], [np.zeros(0, np.float32)]
    for objects, (x, y, _, _) in zip(found, tiles.tolist(), strict=True):
        if objects.masks is None or objects.scores is None or objects.keypoints is not None:
            raise PredictionError(
                "tiles are merged by masks and scores: this model gives none, or gives keypoints; "
                "predict without --tile"
            )
        parts.append(Spans.from_masks(objects.masks, (x, y), size))
        boxes.append(objects.boxes + np.array([x, y, x, y], np.float32))
        scores.append(objects.scores)
    spans = Spans.concatenate(parts, size)
    offsets = np.cumsum([0, *(len(objects) for objects in found)])
    tile = np.repeat(np.arange(len(tiles)), np.diff(offsets))
    all_boxes = np.concatenate(boxes)
    return _Views(
        spans=spans,
        bounds=np.concatenate([np.zeros((0, 4), np.int64), *(part.boxes() for part in parts)]),
        boxes=all_boxes,
        labels=np.concatenate([np.zeros(0, np.int32), *(o.labels for o in found)]),
        scores=np.concatenate(scores),
        tile=tile,
        cut=_cut(all_boxes, tiles[tile], size),
        tiles=tiles,
        offsets=offsets,
    )


def _cut(boxes: NDArray[np.float32], tiles: Ints, size: tuple[int, int]) -> Bools:
    """Which sides of each box, float32 (N, 4), end at an inner border of its tile, int64 (N, 4)."""
    sides = np.tile(tiles[:, 2:] - tiles[:, :2], 2)
    inward = np.where([True, True, False, False], boxes - tiles, tiles - boxes)
    inner: Bools = tiles != np.array([0, 0, size[1], size[0]])
    near: Bools = inward <= np.maximum(_NEAR * sides, _NEAR_PIXELS)
    return near & inner


def _same_objects(views: _Views) -> Ints:
    """int64 (P, 2): pairs of views that show one object."""
    pairs = [_matches(views, a, b) for a, b in _neighbours(views.tiles)]
    return np.concatenate([np.zeros((0, 2), np.int64), *pairs])


def _neighbours(tiles: Ints) -> Iterator[tuple[int, int]]:
    """Pairs of tiles that share pixels."""
    order = np.argsort(tiles[:, 0], kind="stable")
    left, top, _, bottom = tiles[order].T
    reach = np.searchsorted(left, tiles[order, 2])  # those further on begin beyond this one
    for i, end in enumerate(reach.tolist()):
        beside = (top[i + 1 : end] < bottom[i]) & (bottom[i + 1 : end] > top[i])
        for j in np.flatnonzero(beside).tolist():
            yield int(order[i]), int(order[i + 1 + j])


def _matches(views: _Views, a: int, b: int) -> Ints:
    """int64 (P, 2): objects of tile `a` and of tile `b` that are one by rule 1."""
    tile_a, tile_b = views.tiles[a], views.tiles[b]
    strip = np.concatenate((np.maximum(tile_a[:2], tile_b[:2]), np.minimum(tile_a[2:], tile_b[2:])))
    in_a, area_a = _within(views, a, strip)
    in_b, area_b = _within(views, b, strip)
    i, j = np.nonzero(
        (views.labels[in_a][:, None] == views.labels[in_b])
        & _overlap(views.bounds[in_a][:, None], views.bounds[in_b])
    )
    if len(i) == 0:
        return np.zeros((0, 2), np.int64)
    both = views.spans[np.concatenate((in_a, in_b))]  # few spans are searched faster than all
    shared = both.intersection_areas(i, len(in_a) + j)
    agree = shared >= AGREEMENT * (area_a[i] + area_b[j] - shared)
    # a border of one tile cuts off what the other still shows if it lies inside the other
    cut_a: Bools = np.any(views.cut[in_a] & _borders_inside(tile_a, tile_b), axis=1)
    cut_b: Bools = np.any(views.cut[in_b] & _borders_inside(tile_b, tile_a), axis=1)
    agree |= cut_a[i] & (shared >= AGREEMENT * area_a[i])
    agree |= cut_b[j] & (shared >= AGREEMENT * area_b[j])
    return np.stack((in_a[i], in_b[j]), axis=1)[agree]


def _within(views: _Views, tile: int, strip: Ints) -> tuple[Ints, Ints]:
    """Objects of a tile that have pixels in the strip, and how many."""
    objects = np.arange(views.offsets[tile], views.offsets[tile + 1])
    objects = objects[_overlap(views.bounds[objects], strip)]
    area = views.spans.areas_within(objects, strip)
    return objects[area > 0], area[area > 0]


def _overlap(a: Ints, b: Ints) -> Bools:
    """Whether boxes xyxy share pixels; broadcast over all but the last axis."""
    begin, end = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    share: Bools = np.all(begin < end, axis=-1)
    return share


def _borders_inside(tile: Ints, other: Ints) -> Bools:
    """Which of a tile's four borders lie inside the other tile."""
    inside: Bools = np.concatenate((tile[:2] > other[:2], tile[2:] < other[2:]))
    return inside


def _components(count: int, pairs: Ints) -> tuple[Ints, int]:
    """Group of each of `count` views where pairs belong together, and how many groups there are."""
    smallest = np.arange(count)
    while True:
        joint = smallest[pairs].min(axis=1) if len(pairs) else np.zeros(0, np.int64)
        lower = smallest.copy()
        for side in (0, 1):
            # also through the representatives, so that a chain shrinks by half in each round
            np.minimum.at(lower, smallest[pairs[:, side]], joint)
            np.minimum.at(lower, pairs[:, side], joint)
        lower = lower[lower]
        if np.array_equal(lower, smallest):
            break
        smallest = lower
    names, group = np.unique(smallest, return_inverse=True)
    return group, len(names)


def _contributing(views: _Views, group: Ints, groups: int) -> Ints:
    """Views that make up the masks: by rule 3 one whole view of a group, or else all of it."""
    joined = np.bincount(group, minlength=groups) > 1
    whole = np.flatnonzero(joined[group] & ~views.cut.any(axis=1))
    if len(whole) == 0:
        return np.arange(len(group))
    concerned = np.unique(group[whole])
    members = np.flatnonzero(np.isin(group, concerned))
    united = views.spans[members].union(np.searchsorted(concerned, group[members]), len(concerned))
    of_whole = np.searchsorted(concerned, group[whole])
    inside = united.areas_within(of_whole, views.tiles[views.tile[whole]])
    whole = whole[inside >= (1 - _OUTSIDE) * united.area()[of_whole]]
    whole = whole[_best_first(views.scores[whole], views.labels[whole], views.boxes[whole])]
    settled, best = np.unique(group[whole], return_index=True)
    others = np.flatnonzero(~np.isin(group, settled))
    return np.sort(np.concatenate((others, whole[best])))


def _united_masks(spans: Spans, views: Ints, group: Ints, groups: int) -> Masks:
    """Masks of the groups, each the union of its views; some at a time, which bounds the working memory."""
    order = np.argsort(group, kind="stable")
    views, group = views[order], group[order]
    first = np.searchsorted(group, np.arange(groups + 1))  # each group's first view
    before = np.concatenate(([0], np.cumsum(np.diff(spans.offsets)[views])))[first]
    cuts = np.flatnonzero(np.diff(before[:-1] // AT_ONCE, prepend=-1))
    runs: list[NDArray[np.uint32]] = []
    for a, b in pairwise([*cuts.tolist(), groups]):
        members = slice(first[a], first[b])
        united = spans[views[members]].union(group[members] - a, b - a).to_masks()
        runs += [united.runs(i) for i in range(b - a)]
    return Masks.from_runs(runs, spans.size)


def _united_boxes(boxes: NDArray[np.float32], group: Ints, groups: int) -> NDArray[np.float32]:
    """float32 (groups, 4): the smallest boxes around those of each group."""
    united = np.tile(np.array([np.inf, np.inf, -np.inf, -np.inf], np.float32), (groups, 1))
    np.minimum.at(united[:, :2], group, boxes[:, :2])
    np.maximum.at(united[:, 2:], group, boxes[:, 2:])
    return united


def _best_first(
    scores: NDArray[np.float32], labels: NDArray[np.int32], boxes: NDArray[np.float32]
) -> Ints:
    """Order by falling score; equal ones by class and place, so that the order given does not matter."""
    return np.lexsort((*boxes.T[::-1], labels, -scores))
