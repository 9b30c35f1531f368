"""Windows and scales of large-scale jitter and crops."""

from __future__ import annotations

import numpy as np
import pytest

from segcli.data.augment import Change, CropChange, Jitter, Paste
from segcli.data.framing import framing, lsj_side, paste_ratio
from segcli.models.conventions import Preprocess
from segcli.preprocess import prepare, scale_for

RECIPE = Preprocess()
SMALL = Preprocess(min_size=64, max_size=128)


def test_the_square_holds_as_many_pixels_as_the_recipe() -> None:
    """1024 for 800 and 1333, as in the paper; a multiple of the padding, and never nothing."""
    assert lsj_side(RECIPE) == 1024
    assert lsj_side(Preprocess(min_size=256, max_size=256)) == 256
    assert lsj_side(Preprocess(min_size=4, max_size=4)) == 32


def test_without_a_change_all_is_seen_at_the_usual_scale() -> None:
    """Times the change's own factor."""
    frame = framing((480, 640), Change(scale=1.2), RECIPE)
    assert frame.window == (0, 0, 640, 480)
    assert frame.scale == scale_for((480, 640), RECIPE) * 1.2
    assert frame.side is None


@pytest.mark.parametrize("place", [(0.0, 0.0), (1.0, 1.0), (0.3, 0.8)])
@pytest.mark.parametrize("size", [(1, 1), (1, 900), (33, 47), (480, 640)])
@pytest.mark.parametrize("scale", [0.1, 0.5, 1.0, 1.37, 2.0])
def test_jittered_pictures_fit_the_square(
    size: tuple[int, int], scale: float, place: tuple[float, float]
) -> None:
    """Windows lie inside the picture, the result inside the square, and a large picture fills its side."""
    frame = framing(size, Change(lsj=Jitter(scale, place)), SMALL)
    x0, y0, x1, y1 = frame.window
    assert 0 <= x0 < x1 <= size[1]
    assert 0 <= y0 < y1 <= size[0]
    image = np.zeros((y1 - y0, x1 - x0, 3), np.uint8)
    h, w = prepare(image, SMALL, scale=frame.scale).size
    assert frame.side == lsj_side(SMALL)
    assert max(h, w) <= frame.side
    if scale <= 1 and min(size) > 30:
        assert frame.window == (0, 0, size[1], size[0])
    elif min(size) > 30:
        assert max(h, w) >= frame.side - frame.scale - 1


def test_a_crop_is_enlarged_to_the_network_size() -> None:
    """The window keeps the aspect ratio, so it becomes as large as the whole picture would."""
    change = Change(crop=CropChange(0.5, (1.0, 0.5)))
    frame = framing((100, 200), change, SMALL)
    assert frame.window == (100, 25, 200, 75)
    assert frame.scale == scale_for((50, 100), SMALL)
    assert framing((1, 1), change, SMALL).window == (0, 0, 1, 1)


def test_pasted_objects_come_at_the_scale_they_would_have_themselves() -> None:
    """A picture twice as large gives objects half the size, in pixels of the smaller one."""
    paste = Paste(False, 1.0, (0.0, 0.0), 0)
    usual = Change(paste=paste)
    own = framing((64, 64), usual, SMALL)
    assert paste_ratio((128, 128), usual, SMALL, own.scale) == 0.5
    jittered = Change(paste=paste, lsj=Jitter(0.5, (0.0, 0.0)))
    own = framing((64, 64), jittered, SMALL)
    assert paste_ratio((64, 64), jittered, SMALL, own.scale) == pytest.approx(2.0)
