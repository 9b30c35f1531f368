"""Orders: resumable, the same for any number of processes, repeats where they are asked for."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from segcli.data.order import EndlessBatches, EpochBatches, Share

RNG = np.random.default_rng(0)
SHAPES = RNG.choice([0.5, 0.75, 1.3], 50)


def _order(**changes: object) -> EpochBatches:
    plain: dict[str, object] = {"seed": 7, "epoch": 3}
    return EpochBatches(SHAPES, 4, **{**plain, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(("pictures", "batch_size"), [(1, 1), (10, 4), (3, 8), (8, 8)])
def test_every_picture_once_an_epoch_in_full_batches(pictures: int, batch_size: int) -> None:
    """The last batch is filled from the start of the shuffle; orders differ by epoch and repeat by seed."""
    shapes = [1.0] * pictures
    batches = list(EpochBatches(shapes, batch_size, seed=5, epoch=0))
    assert len(batches) == len(EpochBatches(shapes, batch_size, seed=5, epoch=0))
    assert all(len(b) == batch_size for b in batches)
    assert {t.index for b in batches for t in b} == set(range(pictures))
    assert batches == list(EpochBatches(shapes, batch_size, seed=5, epoch=0))
    if pictures >= 8:
        assert batches != list(EpochBatches(shapes, batch_size, seed=5, epoch=1))


def test_pictures_of_like_shape_share_a_batch() -> None:
    """Of 32 wide and 32 tall pictures, mixed at random, at most one batch of eight holds both."""
    shapes = [0.5, 2.0] * 32
    batches = list(EpochBatches(shapes, 8, seed=0, epoch=0))
    mixed = [b for b in batches if len({shapes[t.index] for t in b}) > 1]
    assert len(mixed) <= 1
    assert {t.batch for b in batches for t in b} == set(range(8))


@pytest.mark.parametrize("start", [0, 1, 5, 12, 13, 40])
def test_going_on_in_the_middle(start: int) -> None:
    """Gives the rest of the epoch, tickets and all."""
    rest = _order(start=start)
    assert list(rest) == list(_order())[start:]
    assert len(rest) == len(list(rest))
    assert rest.whole == 13


@pytest.mark.parametrize(("world", "batch_size"), [(2, 4), (4, 2), (8, 1)])
def test_processes_share_the_steps_of_one(world: int, batch_size: int) -> None:
    """Together they see what one process with larger batches sees, in as many steps each."""
    alone = list(EpochBatches(SHAPES, 8, seed=7, epoch=3, start=2))
    parts = [
        EpochBatches(SHAPES, batch_size, seed=7, epoch=3, start=2, share=Share(rank, world))
        for rank in range(world)
    ]
    assert len({len(p) for p in parts}) == 1
    steps = zip(*map(list, parts), strict=True)
    together = [[ticket for part in step for ticket in part] for step in steps]
    assert together == alone


@pytest.mark.parametrize(("rank", "world"), [(-1, 2), (2, 2), (0, 0)])
def test_ranks_that_do_not_exist(rank: int, world: int) -> None:
    """Are refused."""
    with pytest.raises(ValueError, match=f"rank {rank} of {world}"):
        Share(rank, world)


def test_partners_are_other_pictures_of_the_step() -> None:
    """Every picture is one other's partner; in steps of one picture it is the next step's."""
    for step in _order():
        assert sorted(t.partner for t in step if t.partner is not None) == sorted(
            t.index for t in step
        )
        assert all(t.partner != t.index for t in step)
    single = list(EpochBatches(SHAPES[:3], 1, seed=0, epoch=0))
    indices = [step[0].index for step in single]
    assert [step[0].partner for step in single] == [*indices[1:], indices[0]]
    assert next(iter(EpochBatches([1.0], 1, seed=0, epoch=0)))[0].partner == 0


def test_pictures_that_come_up_again_are_counted() -> None:
    """The last batch is filled up with pictures of the epoch."""
    tickets = [t for step in EpochBatches([1.0] * 3, 8, seed=0, epoch=0) for t in step]
    assert len({(t.index, t.repeat) for t in tickets}) == 8
    assert sorted(t.repeat for t in tickets) == [0, 0, 0, 1, 1, 1, 2, 2]


def test_endless() -> None:
    """Epoch after epoch; a start in the middle holds for the first alone."""
    stream = list(islice(EndlessBatches(_order(start=10)), 3 + 13 + 2))
    assert stream[:3] == list(_order(start=10))
    assert stream[3:16] == list(_order(epoch=4))
    assert stream[16:] == list(_order(epoch=5))[:2]


def test_repeats() -> None:
    """A picture of factor 2.5 comes 2 or 3 times, 2.5 on average, the others once; epochs are equally long."""
    repeats = np.ones(50)
    repeats[:10] = 2.5
    counts = []
    for epoch in range(60):
        order = EpochBatches(SHAPES, 5, seed=7, epoch=epoch, repeats=repeats)
        steps = list(order)
        assert len(steps) == order.whole == 13  # 40 + 25 pictures
        counts.append(np.bincount([t.index for step in steps for t in step], minlength=50))
        assert steps == list(order)
    rare, usual = np.split(np.array(counts), [10], axis=1)
    assert set(rare.reshape(-1).tolist()) == {2, 3}
    assert set(usual.reshape(-1).tolist()) == {1}
    assert rare.mean(axis=0).min() > 2.2
    assert rare.mean(axis=0).max() < 2.8


def test_factors_of_one_repeat_nothing() -> None:
    """Every picture once."""
    steps = list(EpochBatches([1.0] * 12, 4, seed=0, epoch=0, repeats=np.ones(12)))
    assert sorted(t.index for s in steps for t in s) == list(range(12))
