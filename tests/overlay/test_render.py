"""Drawing: which pixels change, and to what."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from segcli.categories import Categories
from segcli.config import DrawConfig
from segcli.errors import DataError
from segcli.images import read_image
from segcli.instances import Instances
from segcli.masks import Masks
from segcli.overlay.palette import class_colors, instance_color
from segcli.overlay.render import draw_instances

NAMES = Categories.from_names(["cell", "debris"])
BARE = DrawConfig(labels=False)


def grey(height: int = 60, width: int = 80) -> NDArray[np.uint8]:
    return np.full((height, width, 3), 100, np.uint8)


def rectangle(size: tuple[int, int], x0: int, y0: int, x1: int, y1: int) -> NDArray[np.bool_]:
    mask = np.zeros(size, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def objects(
    *masks: NDArray[np.bool_], labels: tuple[int, ...] = (), scores: tuple[float, ...] = ()
) -> Instances:
    packed = Masks.from_dense(np.stack(masks))
    n = len(masks)
    return Instances(
        packed.size,
        packed.boxes(),
        np.array(labels or (0,) * n, np.int32),
        np.array(scores or (0.9,) * n, np.float32),
        packed,
    )


def test_no_objects_leave_the_picture_as_it_is() -> None:
    """Nothing to draw gives an equal picture in a new array."""
    image = grey()
    drawn = draw_instances(image, Instances.empty((60, 80)), NAMES, DrawConfig())
    np.testing.assert_array_equal(drawn, image)
    assert not np.shares_memory(drawn, image)


@pytest.mark.parametrize("opacity", [0.0, 0.45, 1.0])
def test_inside_is_blended_and_outside_is_untouched(opacity: float) -> None:
    """Inside, away from the outline, each pixel is the stated mix; far outside nothing changes."""
    image = grey()
    image.setflags(write=False)
    found = objects(rectangle((60, 80), 20, 10, 60, 50))
    drawn = draw_instances(image, found, NAMES, DrawConfig(labels=False, opacity=opacity))
    color = np.array(class_colors(NAMES.names)[0])
    expected = np.round(100 * (1 - opacity) + color * opacity)
    np.testing.assert_array_equal(drawn[14:46, 24:56], np.broadcast_to(expected, (32, 32, 3)))
    outside = ~rectangle((60, 80), 18, 8, 62, 52)
    np.testing.assert_array_equal(drawn[outside], image[outside])


def test_outline_style_keeps_the_inside() -> None:
    """With style outline only the border changes, to the class's own colour."""
    image = grey()
    drawn = draw_instances(
        image,
        objects(rectangle((60, 80), 20, 10, 60, 50)),
        NAMES,
        DrawConfig(labels=False, style="outline"),
    )
    np.testing.assert_array_equal(drawn[13:47, 23:57], image[13:47, 23:57])
    changed = np.flatnonzero((drawn != image).any(axis=(1, 2)))
    assert changed.min() in (9, 10)
    assert changed.max() in (49, 50)
    np.testing.assert_allclose(drawn[30, 20], class_colors(NAMES.names)[0], atol=30)


def test_holes_stay_open() -> None:
    """A hole in a mask is not filled."""
    mask = rectangle((60, 80), 10, 10, 70, 50) & ~rectangle((60, 80), 30, 20, 50, 40)
    drawn = draw_instances(grey(), objects(mask), NAMES, BARE)
    np.testing.assert_array_equal(drawn[24:36, 34:46], grey()[24:36, 34:46])
    assert (drawn[14, 14] != 100).any()


def test_small_objects_are_drawn_over_large_ones() -> None:
    """Whatever the order of the objects, the small one is on top."""
    large, small = rectangle((60, 80), 5, 5, 75, 55), rectangle((60, 80), 30, 20, 50, 40)
    style = DrawConfig(labels=False, opacity=1.0)
    for found in (
        objects(large, small, labels=(0, 1)),
        objects(small, large, labels=(1, 0)),
    ):
        drawn = draw_instances(grey(), found, NAMES, style)
        assert tuple(drawn[30, 40]) == class_colors(NAMES.names)[1]
        assert tuple(drawn[10, 10]) == class_colors(NAMES.names)[0]


def test_low_scores_are_left_out() -> None:
    """Objects below draw_score are not drawn, equal ones are; objects without scores always are."""
    found = objects(
        rectangle((60, 80), 5, 5, 25, 25), rectangle((60, 80), 40, 5, 60, 25), scores=(0.5, 0.49)
    )
    drawn = draw_instances(grey(), found, NAMES, BARE)
    assert (drawn[15, 15] != 100).any()
    assert (drawn[15, 50] == 100).all()
    truth = Instances(found.image_size, found.boxes, found.labels, None, found.masks)
    drawn = draw_instances(grey(), truth, NAMES, BARE)
    assert (drawn[15, 15] != 100).any()
    assert (drawn[15, 50] != 100).any()


def test_colour_by_instance_tells_objects_of_one_class_apart() -> None:
    """Two objects of one class have the palette's first two colours."""
    style = DrawConfig(labels=False, opacity=1.0, color_by="instance")
    found = objects(rectangle((60, 80), 5, 5, 25, 25), rectangle((60, 80), 40, 5, 60, 25))
    drawn = draw_instances(grey(), found, NAMES, style)
    assert tuple(drawn[15, 15]) == instance_color(0)
    assert tuple(drawn[15, 50]) == instance_color(1)


@pytest.mark.parametrize("masks", [None, Masks.from_dense(np.zeros((1, 60, 80), bool))])
def test_without_a_mask_a_box_is_drawn(masks: Masks | None) -> None:
    """Objects without masks, and with empty ones, show as a rectangle."""
    boxes = np.array([[10, 10, 50, 40]], np.float32)
    found = Instances((60, 80), boxes, np.zeros(1, np.int32), np.ones(1, np.float32), masks)
    drawn = draw_instances(grey(), found, NAMES, BARE)
    assert tuple(drawn[25, 10]) == class_colors(NAMES.names)[0]
    assert (drawn[25, 30] == 100).all()


@pytest.mark.parametrize(
    "mask",
    [
        pytest.param(rectangle((60, 80), 7, 7, 8, 8), id="one-pixel"),
        pytest.param(rectangle((60, 80), 0, 0, 80, 60), id="whole-picture"),
        pytest.param(rectangle((60, 80), 0, 3, 80, 4), id="one-row"),
        pytest.param(np.eye(60, 80, dtype=bool), id="diagonal"),
        pytest.param(rectangle((1, 1), 0, 0, 1, 1), id="one-pixel-picture"),
        pytest.param(rectangle((3, 400), 0, 0, 9, 3), id="three-rows-high"),
    ],
)
@pytest.mark.parametrize("style", ["fill", "outline"])
def test_awkward_masks_are_drawn(mask: NDArray[np.bool_], style: str) -> None:
    """Tiny, thin and full masks, labels included, change the picture and never leave it."""
    image = grey(*mask.shape)
    drawn = draw_instances(image, objects(mask), NAMES, DrawConfig(style=style))
    assert drawn.shape == image.shape
    assert (drawn != image).any()


def test_label_is_written_in_its_colour_on_the_object() -> None:
    """With labels there is a tag of the class's colour above the object."""
    found = objects(rectangle((120, 160), 40, 60, 90, 100))
    bare = draw_instances(grey(120, 160), found, NAMES, BARE)
    full = draw_instances(grey(120, 160), found, NAMES, DrawConfig())
    changed = (bare != full).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert rows.max() <= 60
    assert columns.min() == 40
    color = np.array(class_colors(NAMES.names)[0])
    assert (full[changed] == color).all(axis=1).mean() > 0.4


def test_other_size_is_refused() -> None:
    """Predictions of another picture are named with both sizes."""
    with pytest.raises(DataError, match="80 × 60 pixels, but its predictions are for 9 × 8"):
        draw_instances(grey(), Instances.empty((8, 9)), NAMES, BARE)


def test_a_4k_picture_with_100_small_masks_is_fast() -> None:
    """Work happens in crops: a hundred small objects at 4K take far less than a pass over each full mask."""
    size, rng = (2160, 3840), np.random.default_rng(0)
    crops = [
        (np.ones((40, 40), bool), (int(x), int(y)))
        for x, y in zip(rng.integers(0, 3800, 100), rng.integers(0, 2120, 100), strict=True)
    ]
    masks = Masks.from_crops(crops, size)
    found = Instances(size, masks.boxes(), np.zeros(100, np.int32), np.ones(100, np.float32), masks)
    image = np.zeros((*size, 3), np.uint8)
    draw_instances(image, found, NAMES, DrawConfig())
    begin = time.perf_counter()
    draw_instances(image, found, NAMES, DrawConfig())
    assert time.perf_counter() - begin < 1.0


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools
def test_real_truths_are_drawn(shared: Callable[[str], Path]) -> None:
    """On COCO photos every annotated object's inside changes colour."""
    from pycocotools import mask as coco_mask

    root = shared("data/coco80")
    data = json.loads((root / "instances.json").read_text())
    categories = Categories.from_coco(data["categories"])
    labels = categories.label_of_id()
    for entry in data["images"][:5]:
        size = (entry["height"], entry["width"])
        rows = [a for a in data["annotations"] if a["image_id"] == entry["id"] and not a["iscrowd"]]
        rle = [coco_mask.merge(coco_mask.frPyObjects(a["segmentation"], *size)) for a in rows]
        masks = Masks.from_coco(rle, size)
        found = Instances(
            size,
            masks.boxes(),
            np.array([labels[a["category_id"]] for a in rows], np.int32),
            None,
            masks,
        )
        image = read_image(root / "images" / entry["file_name"])
        drawn = draw_instances(image, found, categories, BARE)
        union = coco_mask.decode(coco_mask.merge(rle)).astype(bool)
        assert (drawn != image).any(axis=2)[union].mean() > 0.98
        assert (drawn != image).any(axis=2)[~union].mean() < 0.1


@pytest.mark.parametrize(("small", "labelled"), [(12, True), (13, False)])
def test_labels_larger_than_their_objects_do_not_hide_a_crowd(small: int, labelled: bool) -> None:
    """Few small objects have labels; among many only those that are larger than their label."""
    size = (120, 400)
    image = grey(*size)
    masks = [rectangle(size, 4 + 30 * i, 4, 12 + 30 * i, 12) for i in range(small)]
    drawn = draw_instances(image, objects(*masks), NAMES, DrawConfig())
    bare = draw_instances(image, objects(*masks), NAMES, BARE)
    assert np.array_equal(drawn, bare) != labelled

    large = objects(*masks, rectangle(size, 150, 40, 390, 110))
    again = draw_instances(image, large, NAMES, DrawConfig())
    assert not np.array_equal(again, draw_instances(image, large, NAMES, BARE))
