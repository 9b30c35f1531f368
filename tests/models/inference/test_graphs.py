"""When a shape is recorded and when its graph goes; with a stand-in for CUDA's graphs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from segcli.models.inference import graphs
from segcli.models.inference.graphs import GraphedDetector, Shape


class StandIn:
    """A detector that says it is on a GPU, and notes its calls."""

    device, dtype = torch.device("cuda", 0), torch.float32

    def __init__(self) -> None:
        self.log: list[str] = []

    def __call__(self, images: Tensor, sizes: Tensor) -> str:
        self.log.append(f"plain {images.shape[3]}")
        return f"found {images.shape[3]}"


class Graph:
    def __init__(self, detector: StandIn, width: int) -> None:
        self.detector, self.width = detector, width

    def replay(self) -> None:
        self.detector.log.append(f"replay {self.width}")


class Graphed(GraphedDetector):
    """Inputs on the CPU; recording is noted."""

    def _new_inputs(self, shape: Shape) -> tuple[Tensor, Tensor]:
        return torch.zeros(shape[0], 3, *shape[1:]), torch.zeros(shape[0], 2)

    def _recorded(self, images: Tensor, sizes: Tensor) -> Any:
        width = images.shape[3]
        log = self.detector.log  # type: ignore[attr-defined]
        log.append(f"record {width}")
        return Graph(self.detector, width), f"found {width}"  # type: ignore[arg-type]


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    made = StandIn()
    monkeypatch.setattr(graphs.torch.cuda, "graph_pool_handle", lambda: (0, 0))
    monkeypatch.setattr(graphs.torch.cuda, "synchronize", lambda _: made.log.append("wait"))
    return made


def test_a_shape_that_comes_again_is_recorded(detector: StandIn) -> None:
    """The first batch of a shape runs as it is; the second is recorded; the others are replays alone."""
    engine = Graphed(detector)  # type: ignore[arg-type]
    found = [engine.run((1, 32, width)) for width in (32, 64, 32, 32, 96)]
    assert found == ["found 32", "found 64", "found 32", "found 32", "found 96"]
    assert detector.log == [
        "plain 32", "plain 64", "record 32", "replay 32", "replay 32", "plain 96",
    ]  # fmt: skip


def test_recorded_at_once(detector: StandIn) -> None:
    """Where no plain run is wanted."""
    engine = Graphed(detector, plain_runs=0)  # type: ignore[arg-type]
    engine.run((2, 32, 32))
    assert detector.log == ["record 32", "replay 32"]


def test_a_graph_that_goes_is_waited_for(detector: StandIn) -> None:
    """It may be running; a shape without a graph costs no wait."""
    engine = Graphed(detector, shapes=2)  # type: ignore[arg-type]
    for width in (32, 32, 64, 96):
        engine.run((1, 32, width))
    assert detector.log == ["plain 32", "record 32", "replay 32", "plain 64", "wait", "plain 96"]


def test_shapes_that_take_turns_are_not_recorded_each_time(detector: StandIn) -> None:
    """One whose graph went has to come more often than there is room before it is recorded again."""
    engine = Graphed(detector, shapes=2)  # type: ignore[arg-type]
    for width in (32, 32, 64, 96, 32, 32, 32, 32, 32):
        engine.run((1, 32, width))
    assert detector.log[6:] == [*["plain 32"] * 3, "record 32", "replay 32", "replay 32"]


def test_a_pool_goes_with_its_last_graph(
    detector: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch refuses to record into one whose graphs are all gone."""
    pools = [(0, 1), (0, 2)]
    monkeypatch.setattr(graphs.torch.cuda, "graph_pool_handle", lambda: pools.pop(0))
    engine = Graphed(detector, shapes=1)  # type: ignore[arg-type]
    for width in (32, 32, 64):
        engine.run((1, 32, width))
    assert (engine._pool, pools) == ((0, 2), [])
