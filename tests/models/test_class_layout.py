"""Rows of the heads by class, in both orders."""

from __future__ import annotations

import pytest
import torch

from segcli.models.class_layout import BACKGROUND_FIRST, BACKGROUND_LAST, ClassLayout

LAYOUTS = [
    ClassLayout(background, box, mask)
    for background in ("first", "last")
    for box in (True, False)
    for mask in (True, False)
]


def test_torchvisions_rows() -> None:
    """Background is row 0 of everything."""
    layout = BACKGROUND_FIRST
    assert (layout.score_rows(90), layout.box_rows(90), layout.mask_rows(90)) == (91, 364, 91)
    assert (layout.background_row(90), layout.score_row(0), layout.score_row(89)) == (0, 1, 90)
    assert (layout.box_group(0), layout.mask_row(89)) == (1, 90)


def test_detectron2s_and_mmdetections_rows() -> None:
    """Background is the last score, and has neither box nor mask."""
    layout = BACKGROUND_LAST
    assert (layout.score_rows(80), layout.box_rows(80), layout.mask_rows(80)) == (81, 320, 80)
    assert (layout.background_row(80), layout.score_row(0), layout.score_row(79)) == (80, 0, 79)
    assert (layout.box_group(79), layout.mask_row(0)) == (79, 0)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("classes", [1, 5])
def test_every_class_has_its_own_row_and_the_background_the_one_left(
    layout: ClassLayout, classes: int
) -> None:
    """Rows of classes and background are all rows there are; slices give the same rows in the order of classes."""
    index = torch.arange(classes)
    for row, rows, part in (
        (layout.score_row(index), layout.score_rows(classes), layout.score_classes(classes)),
        (layout.box_group(index), layout.box_groups(classes), layout.box_classes(classes)),
        (layout.mask_row(index), layout.mask_rows(classes), layout.mask_classes(classes)),
    ):
        assert torch.arange(rows)[part].tolist() == row.tolist()
    scores = [*layout.score_row(index).tolist(), layout.background_row(classes)]
    assert sorted(scores) == list(range(classes + 1))
    assert layout.box_rows(classes) == 4 * layout.box_groups(classes)
