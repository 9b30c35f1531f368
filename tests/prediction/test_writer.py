"""Rows and shards behind the model: order, the bound of the queue, and what an error or an interrupt leaves."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from segcli.config import PredictConfig
from segcli.errors import PredictionError, Terminated
from segcli.instances import Instances
from segcli.prediction import shards, writer
from segcli.prediction.pipeline import Outcome, Source, run_batches
from segcli.prediction.profile import StageTimes
from segcli.prediction.shards import shard_numbers, shard_path
from segcli.prediction.writer import RowWriter


def outcome(key: str, score: float = 0.5) -> Outcome:
    found = Instances(
        (4, 5), np.ones((1, 4), np.float32), np.zeros(1, np.int32), np.array([score], np.float32)
    )
    return Outcome(Source(key, Path(key)), found, None, (4, 5))


def batch(number: int, *, size: int = 2, score: float = 0.5) -> list[tuple[Outcome, int]]:
    return [(outcome(f"{number}-{i}", score), number) for i in range(size)]


def written(out: Path) -> list[str]:
    """Keys in the order of shards and rows."""
    lines = [s for n in shard_numbers(out) for s in shard_path(out, n).read_bytes().split(b"\n")]
    return [row["file"] for row in map(shards.json.loads, filter(None, lines)) if "file" in row]


def keys(numbers: Sequence[int]) -> list[str]:
    return [o.source.key for n in numbers for o, _ in batch(n)]


def give(
    out: Path, numbers: Sequence[int], *, ahead: int = 8, then: BaseException | None = None
) -> None:
    """Put batches, and then leave, by an error if there is one."""
    with RowWriter(out, ahead=ahead) as rows:
        for number in numbers:
            rows.put(batch(number))
        if then is not None:
            raise then


class Gate:
    """A step of the writer's thread that waits until it is let through, and then fails, if it is to."""

    def __init__(self, step: Callable[..., Any], error: BaseException | None = None) -> None:
        self.reached, self.open = threading.Event(), threading.Event()
        self.step, self.error, self.calls = step, error, 0

    def __call__(self, *given: Any) -> Any:
        self.calls += 1
        self.reached.set()
        assert self.open.wait(20)
        if self.error is not None:
            raise self.error
        return self.step(*given)


def test_nothing_put(tmp_path: Path) -> None:
    """Without a batch there is no shard, and no thread stays behind."""
    before = threading.active_count()
    with RowWriter(tmp_path):
        pass
    assert shard_numbers(tmp_path) == []
    assert threading.active_count() == before


def test_order_and_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches land in the order put, in whole shards; the rest is committed on leaving."""
    monkeypatch.setattr(shards, "MAX_PICTURES", 4)
    give(tmp_path, range(11), ahead=1)
    assert written(tmp_path) == keys(range(11))
    assert shard_numbers(tmp_path) == [0, 1, 2, 3, 4, 5]


def test_a_slow_disk_holds_the_giver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one batch in the writer's hand and `ahead` behind it, the next `put` waits."""
    gate = Gate(writer.row_of)
    monkeypatch.setattr(writer, "row_of", gate)
    taken: list[int] = []

    def give() -> None:
        with RowWriter(tmp_path, ahead=2) as rows:
            for number in range(6):
                rows.put(batch(number))
                taken.append(number)

    giver = threading.Thread(target=give)
    giver.start()
    assert gate.reached.wait(20)
    giver.join(0.1)
    assert len(taken) <= 3
    gate.open.set()
    giver.join(20)
    assert not giver.is_alive()
    assert written(tmp_path) == keys(range(6))


def test_a_slow_disk_holds_the_decoders(
    fake: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a long folder only as many pictures are alive as the queues hold, however fast they are decoded."""
    gate = Gate(writer.row_of)
    monkeypatch.setattr(writer, "row_of", gate)
    sources = [Source(str(i), Path(f"{i}.png")) for i in range(60)]
    decoded: list[str] = []

    def read(source: Source) -> NDArray[np.uint8]:
        decoded.append(source.key)
        return np.zeros((3, 3, 3), np.uint8)

    def job() -> None:
        predictor = fake.FakePredictor(PredictConfig())
        outcomes = run_batches(predictor, ([s] for s in sources), read=read)
        with RowWriter(tmp_path, ahead=2) as rows:
            for number, found in enumerate(outcomes):
                rows.put([(o, number) for o in found])

    runner = threading.Thread(target=job)
    runner.start()
    assert gate.reached.wait(20)
    runner.join(0.2)
    # one in the writer's hand, two before it, one that waits to be put; six decoded ahead
    assert len(decoded) <= 1 + 2 + 1 + 6
    gate.open.set()
    runner.join(20)
    assert not runner.is_alive()
    assert written(tmp_path) == [source.key for source in sources]


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(OSError(errno.ENOSPC, "No space left on device"), id="disk full"),
        pytest.param(PredictionError("not finite"), id="numbers"),
        pytest.param(KeyboardInterrupt(), id="interrupt"),
        pytest.param(SystemExit(3), id="exit"),
    ],
)
def test_an_error_in_the_thread_reaches_the_giver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """It is raised once, as it is, though the queue was full; what was finished before it is committed."""
    row_of = writer.row_of

    def fail(found: Outcome, number: int) -> Any:
        if number == 2:
            raise error
        return row_of(found, number)

    monkeypatch.setattr(writer, "row_of", fail)
    with pytest.raises(type(error)) as caught:
        give(tmp_path, range(50), ahead=1)
    assert caught.value is error
    assert written(tmp_path) == keys(range(2))


def test_an_error_at_the_very_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full at the last commit is an error although nothing was put after it."""
    full = OSError(errno.ENOSPC, "No space left on device")
    gate = Gate(shards.ShardWriter.commit, full)
    gate.open.set()
    monkeypatch.setattr(shards.ShardWriter, "commit", gate)
    with pytest.raises(OSError, match="No space left") as caught:
        give(tmp_path, [0])
    assert caught.value is full


@pytest.mark.parametrize(
    "error", [pytest.param(KeyboardInterrupt, id="ctrl-c"), pytest.param(Terminated, id="term")]
)
def test_an_interrupt_commits_what_was_put(tmp_path: Path, error: type[BaseException]) -> None:
    """An interrupted giver leaves every batch that it had put."""
    with pytest.raises(error):
        give(tmp_path, range(3), then=error())
    assert written(tmp_path) == keys(range(3))


def test_ctrl_c_while_the_last_rows_are_written(tmp_path: Path) -> None:
    """It is obeyed when they are written: OUT is not let go while a thread still writes there.

    In a process of its own: a signal that came late would end this one.
    """
    script = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('rows', {__file__!r})\n"
        "rows = importlib.util.module_from_spec(spec); sys.modules['rows'] = rows\n"
        "spec.loader.exec_module(rows)\n"
        f"rows.interrupted_at_the_end({str(tmp_path)!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert written(tmp_path) == keys(range(3))


def interrupted_at_the_end(folder: str) -> None:
    """Write three batches, interrupted three times while they are waited for; Ctrl-C arrives afterwards."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gate = Gate(writer.row_of)
    writer.row_of = gate  # type: ignore[assignment]

    def interrupt() -> None:
        assert gate.reached.wait(20)
        time.sleep(0.5)  # the main thread is within the exit by now
        for _ in range(3):
            time.sleep(0.02)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        time.sleep(0.5)
        gate.open.set()

    rows = RowWriter(Path(folder))
    rows.__enter__()
    for number in range(3):
        rows.put(batch(number))
    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        rows.__exit__(None, None, None)
    interrupter.join(20)
    assert written(Path(folder)) == keys(range(3))


def test_an_error_while_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the rest cannot be written after an interrupt, that is the error: the user must learn of it."""
    gate = Gate(writer.row_of, OSError(errno.ENOSPC, "No space left on device"))
    gate.open.set()
    monkeypatch.setattr(writer, "row_of", gate)
    with pytest.raises(OSError, match="No space") as caught:
        give(tmp_path, [0], then=KeyboardInterrupt())
    assert isinstance(caught.value.__context__, KeyboardInterrupt)


def test_times(tmp_path: Path) -> None:
    """Every picture is encoded once, every batch written once, and the queue is looked at once a batch."""
    times = StageTimes()
    with RowWriter(tmp_path, times=times, ahead=3) as rows:
        for number in range(5):
            rows.put(batch(number))
    sums = times.sums()
    assert (sums["encode"].calls, sums["encode"].taken, sums["write"].calls) == (10, 5, 5)
    assert sums["encode"].longest <= 3
    assert sums["model waits for the writer"].calls == 5
