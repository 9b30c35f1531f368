"""Decoding ahead, predicting in order, and what happens to pictures that fail."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from segcli.config import PredictConfig
from segcli.errors import ImageError, PredictionError
from segcli.prediction.pipeline import Source, map_ahead, reason, run_batches


def sources(n: int) -> list[Source]:
    return [Source(str(i), Path(f"{i}.png")) for i in range(n)]


def read(source: Source) -> NDArray[np.uint8]:
    if source.key == "3":
        raise ImageError(f"{source.path}: broken")
    return np.full((4 + int(source.key), 5, 3), 200, np.uint8)


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param([], id="none"),
        pytest.param([0], id="an empty batch"),
        pytest.param([1], id="one"),
        pytest.param([2, 1], id="a rest"),
        pytest.param([1, 0, 3, 2, 1, 1, 1, 1, 1, 1, 1, 1], id="many"),
    ],
)
def test_order_and_batches(fake: ModuleType, sizes: list[int]) -> None:
    """Outcomes come batch by batch in the order given, each with its picture's size."""
    pictures = iter(sources(sum(sizes)))
    batches = [[next(pictures) for _ in range(n)] for n in sizes]
    predictor = fake.FakePredictor(PredictConfig(batch_size=2))
    results = list(run_batches(predictor, batches, read=read))
    assert [[o.source for o in batch] for batch in results] == batches
    for outcome in (o for batch in results for o in batch):
        if outcome.source.key == "3":
            assert (outcome.instances, outcome.error, outcome.size) == (None, "broken", None)
        else:
            assert outcome.error is None
            assert outcome.size == (4 + int(outcome.source.key), 5)
            assert outcome.instances is not None
            assert outcome.instances.image_size == outcome.size


def test_a_batch_of_failures_is_not_predicted(fake: ModuleType) -> None:
    """Where no picture of a batch can be read, the model is not asked."""
    predictor = fake.FakePredictor(PredictConfig())
    results = list(run_batches(predictor, [[sources(4)[3]], sources(1)], read=read))
    assert [o.error for batch in results for o in batch] == ["broken", None]
    assert predictor.batches == [1]


def test_look_ahead_is_bounded(fake: ModuleType) -> None:
    """Never more than two batches and four pictures are decoded beyond the batch that is predicted."""
    decoded = 0
    lock = threading.Lock()

    def count(source: Source) -> NDArray[np.uint8]:
        nonlocal decoded
        with lock:
            decoded += 1
        return np.zeros((3, 3, 3), np.uint8)

    predictor = fake.FakePredictor(PredictConfig(batch_size=3))
    batches = [sources(3) for _ in range(20)]
    done = 0
    for batch in run_batches(predictor, batches, read=count):
        done += len(batch)
        time.sleep(0.005)
        assert decoded <= done + 2 * 3 + 4 + 1
    assert decoded == done == 60


def test_leaving_early_stops_decoding(fake: ModuleType) -> None:
    """A caller that stops leaves no thread at work behind."""
    before = threading.active_count()
    predictor = fake.FakePredictor(PredictConfig())
    running = run_batches(predictor, ([s] for s in sources(3)), read=read)
    next(running)
    running.close()
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("n", "message"),
    [
        pytest.param(1, r"failed on 0 \(no memory\); .*--batch-size", id="one"),
        pytest.param(5, r"failed on 0, 1, 2 and 1 more \(no memory\)", id="many"),
    ],
)
def test_a_failing_model_stops_the_job(
    fake: ModuleType, monkeypatch: pytest.MonkeyPatch, n: int, message: str
) -> None:
    """The files of the batch and the way out are named; the pictures are not tried one by one."""

    def fail(_self: object, _pictures: object) -> None:
        raise RuntimeError("no memory\nAnd a long stack of C++ frames")

    monkeypatch.setattr(fake.FakePredictor, "predict", fail)
    predictor = fake.FakePredictor(PredictConfig())
    with pytest.raises(PredictionError, match=message):
        list(run_batches(predictor, [sources(n)], read=read))


def test_a_bug_is_not_called_a_failing_model(
    fake: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors of the program itself come through as they are."""
    monkeypatch.setattr(fake.FakePredictor, "predict", None)
    with pytest.raises(TypeError):
        list(run_batches(fake.FakePredictor(PredictConfig()), [sources(1)], read=read))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param(ImageError("a.png: truncated"), "truncated", id="own path"),
        pytest.param(ImageError("b.png: truncated"), "b.png: truncated", id="other path"),
        pytest.param(
            PermissionError(13, "Permission denied", "a.png"), "Permission denied", id="os"
        ),
        pytest.param(OSError("odd\nfile"), "odd", id="os without number"),
        pytest.param(MemoryError(), "not enough memory to decode it", id="memory"),
        pytest.param(ValueError("x"), "ValueError: x", id="other"),
        pytest.param(ValueError(), "ValueError: ValueError", id="no text"),
    ],
)
def test_reasons(error: Exception, expected: str) -> None:
    """A reason is one line and does not repeat the path that stands beside it."""
    assert reason(error, Path("a.png")) == expected


def test_map_ahead_keeps_order_and_raises_in_place() -> None:
    """Results come in order however long each takes; an error comes where its item stands."""

    def slow(item: int) -> int:
        time.sleep(0.01 * (item % 2 == 0))
        if item == 5:
            raise ValueError(item)
        return item

    running = map_ahead(slow, range(8), ahead=3)
    assert [next(running) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="5"):
        next(running)
