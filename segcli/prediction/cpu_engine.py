"""Which engine runs the trunk on a CPU: torch or OpenVINO; as asked for, as recorded, or as measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segcli.errors import UsageError
from segcli.models.inference import Trunk, TrunkEngine
from segcli.prediction import openvino_store as store
from segcli.prediction.calibration import MOST_PICTURES, Calibration
from segcli.prediction.openvino_engine import open_trunk
from segcli.prediction.openvino_runtime import runtime

ENGINES = ("auto", "torch", "openvino")
WORTH = 16  # pictures from which converting and measuring pays
_CALLS = 3


@dataclass(frozen=True)
class EngineRequest:
    """What the user asked for and what is known of the job.

    Attributes:
        engine: `auto`, `torch` or `openvino`.
        precision: `fp32`, `bf16` or `int8`, resolved.
        pictures: that the job has; None = unknown, taken as many.
        first: reads so many prepared pictures from the job's beginning, or fewer, each float32 (1, 3, H, W).
        recorded: `resolved` of a job that goes on; empty where it begins.
    """

    engine: str
    precision: str
    pictures: int | None
    first: Callable[[int], Sequence[Tensor]]
    recorded: Mapping[str, Any]


@dataclass(frozen=True)
class EngineChoice:
    """What runs.

    Attributes:
        engine: of the trunk.
        name: `torch` or `openvino`.
        line: for the start line: name and why.
        resolved: for `config.toml`: `cpu_engine`, and with OpenVINO `openvino` (its version) and `calibration`.
    """

    engine: TrunkEngine
    name: str
    line: str
    resolved: dict[str, Any]


@dataclass(frozen=True)
class Race:
    """Seconds per call of each engine, the best of a few."""

    seconds: Mapping[str, float]

    @property
    def winner(self) -> str:
        """Name of the fastest; the first of equals."""
        return min(self.seconds, key=lambda name: self.seconds[name])

    def describe(self) -> str:
        """`openvino (0.316 s a picture, torch 0.402 s)`."""
        others = [f"{n} {s:.3f} s" for n, s in self.seconds.items() if n != self.winner]
        return f"{self.winner} ({', '.join([f'{self.seconds[self.winner]:.3f} s a picture', *others])})"


def check_request(engine: str, precision: str, device: str) -> None:
    """Refuse what cannot run, before anything is loaded.

    Args:
        engine: as given to `--cpu-engine`.
        precision: as given to `--precision`.
        device: type of the device.

    Raises:
        UsageError: int8 without OpenVINO, OpenVINO elsewhere than on a CPU, or it is not installed.
    """
    if engine not in ENGINES:
        raise UsageError(f"--cpu-engine {engine}: expected {', '.join(ENGINES)}")
    if device != "cpu":
        if precision == "int8":
            raise UsageError(
                f"--precision int8 runs on a CPU with OpenVINO, found --device {device}"
            )
        if engine == "openvino":
            raise UsageError(f"--cpu-engine openvino: found --device {device}; use --device cpu")
        return
    if precision == "int8" and engine == "torch":
        raise UsageError(
            "--precision int8 needs OpenVINO, found --cpu-engine torch; use --cpu-engine openvino"
        )
    if engine == "openvino" or precision == "int8":
        runtime()


def make_trunk_engine(
    trunk: Trunk, torch_engine: Callable[[Trunk], TrunkEngine], request: EngineRequest
) -> EngineChoice:
    """The trunk's engine on a CPU.

    Args:
        trunk: float32, not packed; must not be used afterwards.
        torch_engine: makes the engine of torch (types and packing are its own matter); called last, since it may
            change the trunk.
        request: see there.

    Raises:
        UsageError: see `check_request` and `open_trunk`.
    """
    check_request(request.engine, request.precision, "cpu")
    wanted, why = _wanted(request)
    if wanted == "torch":
        return EngineChoice(torch_engine(trunk), "torch", f"torch{why}", {"cpu_engine": "torch"})
    remembered = _race_path(trunk, request.precision) if wanted == "auto" else None
    winner = store.read(remembered) if remembered else None
    if winner == b"torch":
        line = "torch (faster than openvino when it was measured)"
        return EngineChoice(torch_engine(trunk), "torch", line, {"cpu_engine": "torch"})
    calibration = _calibration(request)
    found = open_trunk(trunk, request.precision, calibration)
    resolved = {"cpu_engine": "openvino", "openvino": runtime().__version__}
    if calibration is not None:
        resolved["calibration"] = calibration.record()
        why = f", int8 calibrated on {calibration.pictures} pictures"
    ours = EngineChoice(found, "openvino", f"openvino{why}", resolved)
    if winner == b"openvino":
        return replace(ours, line="openvino (faster than torch when it was measured)")
    if remembered is None:
        return ours
    picture = request.first(1)
    if not picture:
        return ours
    other = torch_engine(trunk)
    race = faster_engine({"torch": other, "openvino": found}, picture[0])
    store.write(remembered, race.winner.encode())
    if race.winner == "openvino":
        return EngineChoice(found, "openvino", race.describe(), resolved)
    return EngineChoice(other, "torch", race.describe(), {"cpu_engine": "torch"})


def faster_engine(engines: Mapping[str, TrunkEngine], images: Tensor, calls: int = _CALLS) -> Race:
    """Time engines in turn on one batch float32 (N, 3, H, W), after one call each that does not count."""
    for engine in engines.values():
        engine(images)
    best = dict.fromkeys(engines, float("inf"))
    for _ in range(calls):
        for name, engine in engines.items():
            start = time.perf_counter()
            engine(images)
            best[name] = min(best[name], time.perf_counter() - start)
    return Race({name: seconds / len(images) for name, seconds in best.items()})


def _race_path(trunk: Trunk, precision: str) -> Path:
    """Where it is remembered which engine is faster here: the same job, begun twice, shall give the same results."""
    parts = {
        "weights": store.fingerprint(trunk),
        "precision": precision,
        "threads": torch.get_num_threads(),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "openvino": runtime().__version__,
    }
    return store.path_for("race", parts)


def _wanted(request: EngineRequest) -> tuple[str, str]:
    """`torch`, `openvino` or `auto` (to be measured), and why."""
    recorded = request.recorded.get("cpu_engine")
    if request.engine != "auto":
        return request.engine, ""
    if recorded is not None:
        return str(recorded), ", as this job began"
    if request.precision == "int8":
        return "openvino", ""
    if request.pictures is not None and request.pictures < WORTH:
        return "torch", ""
    try:
        runtime()
    except UsageError:
        return "torch", " (openvino is not installed)"
    return "auto", ""


def _calibration(request: EngineRequest) -> Calibration | None:
    if request.precision != "int8":
        return None
    recorded = request.recorded.get("calibration")
    if recorded is None:
        return Calibration.on(request.first(MOST_PICTURES))
    count = int(recorded["pictures"])
    return Calibration.again(recorded, lambda: request.first(count))
