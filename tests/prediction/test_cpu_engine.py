"""The choice between torch and OpenVINO: as asked for, as recorded, as measured."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from segcli.errors import UsageError
from segcli.models import MaskRCNN, ModelSpec
from segcli.models.architectures import NANO
from segcli.models.inference import Trunk, TrunkOutput
from segcli.models.spec import Anchors
from segcli.prediction import cpu_engine
from segcli.prediction.cpu_engine import (
    EngineChoice,
    EngineRequest,
    Race,
    check_request,
    faster_engine,
    make_trunk_engine,
)

NOTHING = TrunkOutput([], [], [])


def idle(images: Tensor) -> TrunkOutput:
    return NOTHING


def torch_engine(trunk: Trunk) -> Callable[[Tensor], TrunkOutput]:
    return idle


def no_pictures(count: int) -> Sequence[Tensor]:
    return []


def pictures(count: int) -> Sequence[Tensor]:
    return [
        torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(i)) for i in range(count)
    ]


def choose(
    engine: str = "auto",
    precision: str = "fp32",
    count: int | None = 100,
    recorded: dict[str, Any] | None = None,
    first: Callable[[int], Sequence[Tensor]] = no_pictures,
) -> EngineChoice:
    torch.manual_seed(0)
    trunk = Trunk(MaskRCNN(ModelSpec(NANO.name, 1, Anchors(), NANO.conventions)).eval())
    return make_trunk_engine(
        trunk.eval(), torch_engine, EngineRequest(engine, precision, count, first, recorded or {})
    )


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without the extra."""
    for name in ("openvino", "nncf"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture
def present() -> None:
    """A machine with it."""
    pytest.importorskip("openvino", reason="openvino is not installed")
    pytest.importorskip("nncf", reason="nncf is not installed")


@pytest.mark.parametrize(
    ("engine", "precision", "device", "words"),
    [
        ("fast", "fp32", "cpu", "--cpu-engine fast: expected auto, torch, openvino"),
        ("torch", "int8", "cpu", "--precision int8 needs OpenVINO, found --cpu-engine torch"),
        ("auto", "int8", "cuda", "runs on a CPU with OpenVINO, found --device cuda"),
        ("openvino", "bf16", "cuda", "--cpu-engine openvino: found --device cuda"),
    ],
)
def test_impossible_requests(engine: str, precision: str, device: str, words: str) -> None:
    """What cannot run is wrong usage, named before anything is loaded."""
    with pytest.raises(UsageError, match=words):
        check_request(engine, precision, device)


@pytest.mark.parametrize(("engine", "precision"), [("openvino", "bf16"), ("auto", "int8")])
def test_absent_package_is_named(absent: None, engine: str, precision: str) -> None:
    """Asked for by name, or needed, a missing package is an error that says how to install it."""
    with pytest.raises(UsageError, match=r'pip install "segcli\[openvino\]"'):
        check_request(engine, precision, "cpu")
    with pytest.raises(UsageError, match=r'pip install "segcli\[openvino\]"'):
        choose(engine, precision, first=pictures)


def test_absent_nncf_is_named(present: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO alone does not calibrate."""
    monkeypatch.setitem(sys.modules, "nncf", None)

    with pytest.raises(UsageError, match=r'NNCF cannot be imported .* pip install "segcli\[open'):
        choose("openvino", "int8", first=pictures)


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_auto_asks_for_nothing(absent: None, device: str) -> None:
    """Without the package `auto` is a usable request everywhere."""
    check_request("auto", "bf16", device)


def test_auto_without_the_package_is_torch(absent: None) -> None:
    """And says so."""
    found = choose()

    assert (found.name, found.resolved) == ("torch", {"cpu_engine": "torch"})
    assert found.line == "torch (openvino is not installed)"


def test_short_jobs_take_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few pictures do not pay for converting; OpenVINO is not even imported."""
    monkeypatch.setattr(cpu_engine, "runtime", None)

    assert choose(count=3).line == "torch"


@pytest.mark.parametrize("seconds", [0.0, 0.3])
def test_auto_takes_the_faster(
    present: None, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """Both run on the job's first picture; what is printed and recorded is the winner."""
    race = Race({"torch": 0.2, "openvino": seconds})
    monkeypatch.setattr(cpu_engine, "faster_engine", lambda *_: race)
    found = choose(first=pictures)

    winner = "torch" if seconds > 0.2 else "openvino"
    assert found.name == found.resolved["cpu_engine"] == winner
    assert found.line.startswith(f"{winner} (")
    assert ("openvino" in found.resolved) == (winner == "openvino")
    output = found.engine(pictures(1)[0])
    assert (output is NOTHING) == (winner == "torch")


@pytest.mark.parametrize("seconds", [0.0, 0.3])
def test_the_winner_is_remembered(
    present: None, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """The same job, begun again, runs on the same engine without a race: its results are the same bits."""
    race = Race({"torch": 0.2, "openvino": seconds})
    monkeypatch.setattr(cpu_engine, "faster_engine", lambda *_: race)
    first = choose(first=pictures)
    monkeypatch.setattr(cpu_engine, "faster_engine", None)
    again = choose(first=pictures)

    assert again.resolved == first.resolved
    assert again.name == first.name
    assert "when it was measured" in again.line
    with pytest.raises(TypeError):  # another precision is another race
        choose(precision="bf16", first=pictures)


@pytest.mark.parametrize("name", ["torch", "openvino"])
def test_a_job_that_goes_on_is_not_measured(
    present: None, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The recorded engine runs, whatever would be faster now, also for a few last pictures."""
    monkeypatch.setattr(cpu_engine, "faster_engine", None)

    found = choose(count=1, recorded={"cpu_engine": name})

    assert found.name == name
    assert found.line == f"{name}, as this job began"


def test_int8_begins_and_goes_on(present: None) -> None:
    """The calibration is recorded, and a job that goes on gives the same bits without its pictures."""
    images = pictures(3)[2]
    found = choose("auto", "int8", first=lambda _: pictures(2))
    again = choose("auto", "int8", first=no_pictures, recorded=found.resolved)

    assert found.resolved["calibration"]["pictures"] == 2
    assert found.resolved == again.resolved
    assert "int8 calibrated on 2 pictures" in found.line
    for a, b in zip(found.engine(images).logits, again.engine(images).logits, strict=True):
        assert torch.equal(a, b)


def test_race_is_between_warm_engines() -> None:
    """The first call of each, in which things are laid out, does not count; calls alternate."""
    calls: list[str] = []

    def engine(name: str, seconds: float) -> Callable[[Tensor], TrunkOutput]:
        def run(images: Tensor) -> TrunkOutput:
            first = name not in calls
            calls.append(name)
            time.sleep(0.2 if first and name == "b" else seconds)
            return NOTHING

        return run

    race = faster_engine(
        {"a": engine("a", 0.05), "b": engine("b", 0.0)}, torch.zeros(2, 3, 8, 8), calls=2
    )

    assert calls == ["a", "b"] * 3
    assert race.winner == "b"
    assert race.describe().startswith("b (0.0")
