"""Decoding ahead, predicting in order, and what happens to pictures that fail."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from segcli.config import PredictConfig
from segcli.errors import ImageError, PredictionError
from segcli.prediction import loads
from segcli.prediction.ahead import map_ahead
from segcli.prediction.pipeline import Source, run_batches
from segcli.prediction.profile import StageTimes
from segcli.prediction.reasons import reason


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


@pytest.mark.parametrize("lanes", [1, 3])
def test_lanes_change_nothing(
    fake: ModuleType, monkeypatch: pytest.MonkeyPatch, lanes: int
) -> None:
    """Batches side by side come out in order, no more of them at once than there are lanes."""
    together, most, lock = 0, 0, threading.Lock()
    predict = fake.FakePredictor.predict

    def watched(self: object, pictures: list[NDArray[np.uint8]]) -> object:
        nonlocal together, most
        with lock:
            together += 1
            most = max(most, together)
        time.sleep(0.01 if pictures[0].shape[0] % 3 else 0.02)
        with lock:
            together -= 1
        return predict(self, pictures)

    monkeypatch.setattr(fake.FakePredictor, "predict", watched)
    predictor = fake.FakePredictor(PredictConfig(batch_size=2))
    predictor.lanes = lanes
    pictures = sources(13)
    batches = [pictures[i : i + 2] for i in range(0, 13, 2)]
    results = list(run_batches(predictor, batches, read=read))
    assert [[o.source for o in batch] for batch in results] == batches
    assert most == lanes
    for outcome in (o for batch in results for o in batch):
        assert (outcome.instances is None) == (outcome.source.key == "3")


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("stage", ["read", "prepare", "predict", "plan"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ZeroDivisionError])
def test_any_error_in_any_stage_ends_it(
    fake: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    error: type[BaseException],
    lanes: int,
) -> None:
    """Nothing hangs, no thread stays: a picture's own error is its row, every other one comes through."""
    before = threading.active_count()
    predictor = fake.FakePredictor(PredictConfig())
    predictor.lanes = lanes

    def fail(*_: object) -> None:
        raise error

    def plan() -> Iterator[list[Source]]:
        yield from ([source] for source in sources(3))
        if stage == "plan":
            raise error
        yield from ([source] for source in sources(3) * 10)

    if stage in ("prepare", "predict"):
        monkeypatch.setattr(predictor, stage, fail)
    running = run_batches(predictor, plan(), read=fail if stage == "read" else read)
    if error is ZeroDivisionError and stage in ("read", "prepare"):
        outcomes = [o for batch in running for o in batch]
        assert [o.error for o in outcomes] == ["ZeroDivisionError: ZeroDivisionError"] * 33
    else:
        with pytest.raises(error):
            list(running)
    assert threading.active_count() == before


def test_large_pictures_are_prepared_one_at_a_time(
    fake: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the limit no two pictures are in `prepare` together; all come out."""
    monkeypatch.setattr(loads, "LARGE", 10)
    together: list[int] = []
    inside, lock = 0, threading.Lock()

    def prepare(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        nonlocal inside
        with lock:
            inside += 1
            together.append(inside)
        time.sleep(0.005)
        with lock:
            inside -= 1
        return image

    predictor = fake.FakePredictor(PredictConfig())
    monkeypatch.setattr(predictor, "prepare", prepare)
    results = list(run_batches(predictor, ([s] for s in sources(9)), read=read))
    assert len(results) == 9
    assert together == [1] * 8  # picture 3 is broken


def test_times_count_every_picture(fake: ModuleType) -> None:
    """Each picture is decoded once, each good one prepared once, each batch with a good one predicted once."""
    times = StageTimes()
    predictor = fake.FakePredictor(PredictConfig(batch_size=2))
    batches = [sources(2), [sources(4)[3]], sources(3), []]
    assert len(list(run_batches(predictor, batches, read=read, times=times))) == 4
    sums = times.sums()
    calls = {name: sums[name].calls for name in ("decode", "prepare", "model")}
    assert calls == {"decode": 6, "prepare": 5, "model": 2}
    assert sums["model"].taken == 6
    assert sums["model"].longest <= 6


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
