"""Which change a picture gets: numbers that depend on seed and place alone."""

from __future__ import annotations

import pytest

from segcli.data.augment import AUGMENTATIONS, Change, check_names, choose
from segcli.errors import UsageError

ALL = tuple(n for n in AUGMENTATIONS if n != "lsj")


def _many(names: tuple[str, ...], count: int = 200) -> list[Change]:
    return [choose(names, seed=1, epoch=2, index=i, batch=i // 8) for i in range(count)]


def test_nothing_is_changed_where_nothing_is_on() -> None:
    """Whatever the place."""
    assert set(_many(())) == {Change()}


def test_changes_depend_on_seed_epoch_and_place_alone() -> None:
    """So any number of workers gives the same training; a batch shares its scale, so that padding stays small."""
    both = ("flip", "scale")
    first = choose(both, seed=1, epoch=2, index=3, batch=4)
    assert first == choose(both, seed=1, epoch=2, index=3, batch=4)
    batch = [choose(both, seed=1, epoch=2, index=i, batch=4) for i in range(50)]
    assert {c.flip for c in batch} == {True, False}
    assert {c.scale for c in batch} == {first.scale}
    scales = {choose(both, seed=1, epoch=2, index=3, batch=b).scale for b in range(50)}
    assert len(scales) == 50
    assert 0.75 <= min(scales) < 0.85
    assert 1.2 < max(scales) <= 1.35


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_each_changes_its_own_field_alone(name: str) -> None:
    """And differs between pictures and between epochs."""
    field = {"rotate90": "turns", "copy-paste": "paste"}.get(name, name)
    changes = _many((name,))
    values = [getattr(c, field) for c in changes]
    assert len(set(values)) > 1
    assert values != [
        getattr(choose((name,), seed=1, epoch=3, index=i, batch=i // 8), field) for i in range(200)
    ]
    plain = Change()
    for other in Change.__dataclass_fields__:
        if other != field:
            assert {getattr(c, other) for c in changes} == {getattr(plain, other)}


@pytest.mark.parametrize("name", ALL)
def test_switching_one_on_leaves_the_others_as_they_were(name: str) -> None:
    """Each has random numbers of its own. Pasted objects are flipped only where pictures are."""
    rest = tuple(n for n in ALL if n not in (name, "flip"))
    field = {"rotate90": "turns", "copy-paste": "paste"}.get(name, name)
    for with_it, without in zip(_many((*rest, name), 50), _many(rest, 50), strict=True):
        for other in Change.__dataclass_fields__:
            if other != field and not (name == "flip" and other == "paste"):
                assert getattr(with_it, other) == getattr(without, other)


def test_a_picture_that_comes_up_again_is_changed_in_another_way() -> None:
    """In one epoch, with repeat factors."""
    names = ("flip", "crop", "color")
    twice = [
        [choose(names, seed=1, epoch=0, index=i, batch=0, repeat=r) for i in range(40)]
        for r in (0, 1)
    ]
    assert {c.flip for c in twice[1]} == {True, False}
    assert [c.flip for c in twice[0]] != [c.flip for c in twice[1]]
    assert all(a.crop != b.crop and a.color != b.color for a, b in zip(*twice, strict=True))


def test_ranges() -> None:
    """Crops keep 0.6 to 1 of each side, jitter is 0.1 to 2, half of the pictures are pasted on."""
    changes = _many(("crop", "color", "copy-paste", "rotate90"))
    assert all(c.crop is not None and 0.6 <= c.crop.side <= 1 for c in changes)
    assert all(c.color is not None and 0.75 <= c.color.contrast <= 1.25 for c in changes)
    assert 70 < sum(c.paste is not None for c in changes) < 130
    assert {c.turns for c in changes} == {0, 1, 2, 3}
    jitter = [c.lsj.scale for c in _many(("lsj",)) if c.lsj is not None]
    assert min(jitter) < 0.3
    assert max(jitter) > 1.8
    assert all(0.1 <= s <= 2 for s in jitter)


def test_a_batch_turns_together_by_odd_quarters() -> None:
    """Pictures that lie among pictures that stand would be mostly padding."""
    changes = _many(("rotate90",))
    for start in range(0, 200, 8):
        assert len({c.turns % 2 for c in changes[start : start + 8]}) == 1


def test_unknown_augmentations_are_refused() -> None:
    """With the known ones in the message; lsj alone sets scale and window."""
    check_names(AUGMENTATIONS[:1])
    check_names(("flip", "lsj", "copy-paste", "color"))
    with pytest.raises(UsageError, match="expected some of flip, scale"):
        check_names(("flip", "mosaic"))
    for other in ("scale", "crop"):
        with pytest.raises(UsageError, match=f"leave out {other} or lsj"):
            check_names((other, "lsj"))
