"""Drawing objects on a picture: filled masks with outline, class and score."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from segcli.categories import Categories
from segcli.config import DrawConfig
from segcli.errors import DataError
from segcli.instances import Instances
from segcli.overlay.labels import Placer, label_text, text_mask
from segcli.overlay.palette import Color, class_colors, instance_color, text_color

_SHIFT = 4  # OpenCV draws at 1/16 pixel
_CROWD = 12  # with more objects, labels larger than theirs would hide the picture


def draw_instances(
    image: NDArray[np.uint8], instances: Instances, categories: Categories, style: DrawConfig
) -> NDArray[np.uint8]:
    """Draw objects, the largest first, so that small ones stay visible; labels come last.

    Objects below `style.draw_score` are left out. Objects without a mask are drawn as boxes. A label that would
    hide another one is left out; among many objects also one that is larger than its object's box.

    Args:
        image: uint8 (H, W, 3), RGB; not changed.
        instances: objects in the picture's frame.
        categories: names for their labels.
        style: how it looks.

    Returns:
        uint8 (H, W, 3), RGB; a new array.

    Raises:
        DataError: the objects belong to a picture of another size.
    """
    found = (int(image.shape[0]), int(image.shape[1]))
    if found != tuple(instances.image_size):
        raise DataError(
            f"picture of {found[1]} × {found[0]} pixels, but its predictions are for "
            f"{instances.image_size[1]} × {instances.image_size[0]}"
        )
    canvas = np.array(image, np.uint8, order="C")
    if instances.scores is not None:
        instances = instances[instances.scores >= style.draw_score]
    colors = _colors(instances, categories, style)
    order = np.argsort(-_areas(instances), kind="stable")
    for i in order:
        _draw_object(canvas, instances, int(i), colors[i], style)
    if style.labels:
        _draw_labels(canvas, instances, categories, [(int(i), colors[i]) for i in order])
    return canvas


def _colors(instances: Instances, categories: Categories, style: DrawConfig) -> list[Color]:
    if style.color_by == "instance":
        return [instance_color(i) for i in range(len(instances))]
    table = class_colors(categories.names)
    return [table[label] for label in instances.labels]


def _areas(instances: Instances) -> NDArray[np.float64]:
    if instances.masks is not None:
        return instances.masks.area().astype(np.float64)
    boxes = instances.boxes.astype(np.float64)
    areas: NDArray[np.float64] = (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1)
    return areas


def _line_width(picture: tuple[int, ...]) -> int:
    """Of outlines, in pixels: 1 on a small picture, 3 at 4K."""
    return 1 + int(math.sqrt(picture[0] * picture[1]) / 1200)


def _font_size(picture: tuple[int, ...]) -> int:
    """In pixels: 11 at 640 × 480, 32 at 4K."""
    return min(max(round(6 + math.sqrt(picture[0] * picture[1]) / 110), 10), 40)


def _draw_object(
    canvas: NDArray[np.uint8], instances: Instances, i: int, color: Color, style: DrawConfig
) -> None:
    """Fill and outline one object in place."""
    width = _line_width(canvas.shape)
    crop, (x, y) = (
        (np.zeros((0, 0), bool), (0, 0)) if instances.masks is None else instances.masks.crop(i)
    )
    if crop.size == 0:
        _draw_box(canvas, instances.boxes[i], color, width)
        return
    mask = np.ascontiguousarray(crop, np.uint8)
    if style.style == "fill":
        h, w = mask.shape
        _fill(canvas[y : y + h, x : x + w], mask, color, style.opacity)
    # padded, since a contour does not see that an object ends at the edge of an array
    padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    contours, _ = cv2.findContours(
        padded, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(x - 1, y - 1)
    )
    lines = [_smooth(np.asarray(contour, np.int32)) for contour in contours]
    # lighter than the fill, so that two objects of one class that touch stay two
    tone = _lighter(color) if style.style == "fill" else color
    cv2.polylines(canvas, lines, True, tone, width, cv2.LINE_AA, _SHIFT)


def _fill(region: NDArray[np.uint8], mask: NDArray[np.uint8], color: Color, opacity: float) -> None:
    """Blend a colour into the masked pixels of a view of the picture, in place."""
    values = np.arange(256)[:, None] * (1 - opacity) + np.asarray(color) * opacity
    table = np.round(values).astype(np.uint8)[None]  # (1, 256, 3): what becomes of each value
    cv2.copyTo(cv2.LUT(region, table), mask, region)


def _smooth(contour: NDArray[np.int32]) -> NDArray[np.int32]:
    """A pixel staircase as a smooth line: each point moves to the mean of itself and its neighbours.

    Args:
        contour: int32 (P, 1, 2), x, y in pixels, closed.

    Returns:
        int32 (P, 1, 2), in 1/16 pixel.
    """
    points = contour.astype(np.int32) << _SHIFT
    if len(points) < 8:
        return points
    around = np.roll(points, 1, axis=0) + np.roll(points, -1, axis=0)
    smooth: NDArray[np.int32] = (around + 2 * points) >> 2
    return smooth


def _lighter(color: Color) -> Color:
    """40 % of the way to white."""
    red, green, blue = (round(0.6 * v + 0.4 * 255) for v in color)
    return red, green, blue


def _draw_box(
    canvas: NDArray[np.uint8], box: NDArray[np.float32], color: Color, width: int
) -> None:
    x0, y0, x1, y1 = (round(float(v)) for v in box)
    cv2.rectangle(canvas, (x0, y0), (max(x0, x1 - 1), max(y0, y1 - 1)), color, width)


def _draw_labels(
    canvas: NDArray[np.uint8],
    instances: Instances,
    categories: Categories,
    ordered: list[tuple[int, Color]],
) -> None:
    size = _font_size(canvas.shape)
    pad = max(2, size // 5)
    placer = Placer((canvas.shape[0], canvas.shape[1]), instances.boxes)
    crowd = len(instances) > _CROWD
    extents = (instances.boxes[:, 2:] - instances.boxes[:, :2]).clip(0).prod(axis=1)
    for i, color in ordered:
        score = None if instances.scores is None else float(instances.scores[i])
        text = text_mask(label_text(categories.names[instances.labels[i]], score), size)
        tag = np.pad(text, ((pad // 2, pad // 2), (pad, pad)))
        if crowd and tag.size > extents[i]:
            continue
        place = placer.place(instances.boxes[i], (tag.shape[0], tag.shape[1]))
        if place is not None:
            _paste_tag(canvas, tag, place, color)


def _paste_tag(
    canvas: NDArray[np.uint8], tag: NDArray[np.uint8], place: tuple[int, int], color: Color
) -> None:
    """Write a label, in black or white on its object's colour; cut where the picture is smaller."""
    x, y = place
    region = canvas[y : y + tag.shape[0], x : x + tag.shape[1]]
    share = tag[: region.shape[0], : region.shape[1], None] / np.float32(255)
    region[:] = np.round(np.asarray(color) * (1 - share) + np.asarray(text_color(color)) * share)
