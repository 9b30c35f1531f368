"""Label text in any script, and places that hide nothing."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from segcli.overlay.labels import Placer, label_text, text_mask, to_ascii


@pytest.mark.parametrize(
    ("name", "score", "expected"),
    [
        pytest.param("", None, "", id="empty"),
        pytest.param("car", 0.987, "car 0.99", id="score"),
        pytest.param("car", None, "car", id="truth"),
        pytest.param("a\x1b[31mb", None, "a\\x1b[31mb", id="control-characters"),
        pytest.param("x" * 60, 0.5, "x" * 38 + ".. 0.50", id="long"),
    ],
)
def test_label_text(name: str, score: float | None, expected: str) -> None:
    """Class and score with two digits; control characters are shown, long names are cut."""
    assert label_text(name, score) == expected


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("nucleus 0.98", id="ascii"),
        pytest.param("Äpfel é ß", id="latin"),
        pytest.param("ядро клетки", id="cyrillic"),
        pytest.param("细胞核", id="chinese"),
        pytest.param("日本語", id="japanese"),
        pytest.param("", id="empty"),
        pytest.param("   ", id="blank"),
    ],
)
@pytest.mark.parametrize("size", [10, 11, 32])
def test_text_is_drawn_in_any_script(text: str, size: int) -> None:
    """Each text leaves ink within a row of about the font's size; nothing fails."""
    mask = text_mask(text, size)
    assert mask.dtype == np.uint8
    assert size * 0.8 <= mask.shape[0] <= size * 1.6
    assert bool(mask.any()) == bool(text.strip())


def test_other_letters_give_other_pictures() -> None:
    """No script falls back to a row of equal boxes."""
    for one, other in (("ab", "cd"), ("ядро", "окно"), ("细胞", "日本")):
        a, b = text_mask(one, 20), text_mask(other, 20)
        assert a.shape != b.shape or not np.array_equal(a, b)


def test_without_opencv_5_letters_are_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no font has the letters, accents go and the rest becomes escapes."""
    monkeypatch.delattr(cv2, "FontFace", raising=False)
    text_mask.cache_clear()
    assert to_ascii("Äpfel 核") == "Apfel \\u6838"
    np.testing.assert_array_equal(text_mask("Äpfel 核", 12), text_mask("Apfel \\u6838", 12))
    text_mask.cache_clear()


def box(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    "where",
    [
        pytest.param((40, 40, 60, 60), id="middle"),
        pytest.param((0, 0, 10, 10), id="top-left-corner"),
        pytest.param((90, 90, 100, 100), id="bottom-right-corner"),
        pytest.param((0, 0, 100, 100), id="whole-picture"),
        pytest.param((50, 50, 50, 50), id="no-size"),
    ],
)
def test_label_lies_in_the_picture_near_its_object(where: tuple[int, int, int, int]) -> None:
    """The label is inside, and touches or overlaps its object's box."""
    boxes = box(*where)[None]
    place = Placer((100, 100), boxes).place(boxes[0], (12, 30))
    assert place is not None
    x, y = place
    assert 0 <= x <= 70
    assert 0 <= y <= 88
    assert x <= where[2]
    assert x + 30 >= where[0]
    assert y <= where[3]
    assert y + 12 >= where[1]


def test_small_object_is_not_covered() -> None:
    """A label goes beside a small object, not on it, and not on a small neighbour."""
    boxes = np.stack([box(40, 40, 50, 50), box(40, 28, 50, 38)])
    x, y = Placer((100, 200), boxes).place(boxes[0], (12, 30)) or (0, 0)
    for x0, y0, x1, y1 in boxes:
        assert x >= x1 or x + 30 <= x0 or y >= y1 or y + 12 <= y0


def test_labels_do_not_hide_one_another() -> None:
    """Of many objects at one place only those get a label that find room for it."""
    boxes = np.repeat(box(45, 45, 55, 55)[None], 40, axis=0)
    placer = Placer((100, 100), boxes)
    places = [placer.place(b, (12, 30)) for b in boxes]
    found = [p for p in places if p is not None]
    assert 2 <= len(found) < 40
    covered = np.zeros((100, 100), int)
    for x, y in found:
        covered[y : y + 12, x : x + 30] += 1
    assert (covered > 1).sum() <= 0.08 * 12 * 30 * len(found)


def test_label_wider_than_the_picture_starts_at_its_edge() -> None:
    """A label that cannot fit begins at the left edge, with its rows inside."""
    boxes = box(5, 5, 9, 9)[None]
    place = Placer((20, 20), boxes).place(boxes[0], (12, 300))
    assert place is not None
    assert place[0] == 0
    assert 0 <= place[1] <= 8
