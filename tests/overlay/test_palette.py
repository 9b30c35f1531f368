"""Colours are far apart, stable, and readable."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest

from segcli.overlay.palette import (
    PALETTE,
    class_colors,
    contrast,
    instance_color,
    text_color,
)

COCO = ("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck")


def spread(colors: tuple[tuple[int, int, int], ...]) -> float:
    """Smallest distance in RGB between two colours."""
    return min(
        sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) ** 0.5
        for one, other in itertools.combinations(colors, 2)
    )


@pytest.mark.parametrize(
    "names",
    [
        pytest.param((), id="none"),
        pytest.param(("nucleus",), id="one"),
        pytest.param(COCO, id="eight"),
        pytest.param(tuple(f"class {i}" for i in range(32)), id="as-many-as-colours"),
        pytest.param(tuple(f"class {i}" for i in range(80)), id="more-than-colours"),
        pytest.param(("a", "a"), id="equal-names"),
    ],
)
def test_classes_share_colours_only_when_they_must(names: tuple[str, ...]) -> None:
    """Every class has a colour of the palette; none is used twice before all are used once."""
    colors = class_colors(names)
    assert len(colors) == len(names)
    assert set(colors) <= set(PALETTE)
    assert len(set(colors)) == min(len(names), len(PALETTE))


@pytest.mark.parametrize("count", [2, 4, 8])
def test_few_classes_are_far_apart(count: int) -> None:
    """Whatever the names, a handful of classes gets colours that nobody confuses."""
    for start in range(40):
        names = tuple(f"thing-{start}-{i}" for i in range(count))
        assert spread(class_colors(names)) > 55


def test_colours_are_the_same_in_another_process() -> None:
    """Python's own hash differs from run to run; the colours do not."""
    code = f"from segcli.overlay.palette import class_colors; print(class_colors({COCO!r}))"
    runs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert runs == {str(class_colors(COCO))}


def test_a_later_class_does_not_change_earlier_ones() -> None:
    """Classes appended to a list leave the colours of the others alone."""
    assert class_colors(COCO)[:5] == class_colors(COCO[:5])


def test_neighbouring_instances_differ() -> None:
    """Objects that follow one another have colours far apart, also past the end of the palette."""
    colors = [instance_color(i) for i in range(2 * len(PALETTE))]
    assert all(spread((a, b)) > 60 for a, b in itertools.pairwise(colors))


@pytest.mark.parametrize("color", PALETTE)
def test_text_is_readable_on_every_colour(color: tuple[int, int, int]) -> None:
    """Black or white text reaches the contrast of 4.5 that WCAG asks of small text."""
    assert text_color(color) in ((0, 0, 0), (255, 255, 255))
    assert contrast(color, text_color(color)) >= 4.5


def test_contrast_of_black_and_white() -> None:
    """The two ends of WCAG's scale."""
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast((9, 9, 9), (9, 9, 9)) == pytest.approx(1)


def test_names_that_are_no_utf_8_have_colours_too() -> None:
    """JSON may name a class by half a surrogate pair."""
    assert len(set(class_colors(("caf\udce9", "caf\ud800", "café")))) == 3
