"""segcli as a contestant: what `segcli predict folder` does with a folder, with the model opened beforehand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segcli.bench.predictors import OURS, Task
from segcli.config import PredictConfig
from segcli.errors import DataError, UsageError
from segcli.prediction.export import FAILED
from segcli.prediction.facts import facts_of_new
from segcli.prediction.job import predict_job
from segcli.prediction.loading import open_predictor
from segcli.prediction.options import JobOptions
from segcli.prediction.profile import MODEL, STAGES, WAITS, HasStages, StageTime, StageTimes
from segcli.prediction.walk import Inputs

# what runs where a job's record does not mention the setting
_PLAIN: dict[str, Any] = {"compile": False, "cpu_engine": "torch"}
_LONG = ("conventions", "categories")  # the same for all; not worth repeating per contestant


class OurJob:
    """A predictor, opened: `run` is the whole job.

    Attributes:
        serial: stages of the thread that runs the model; what they leave of the job's time is plan, settings, the
            last shard and the export.
        resolved: what runs, as a job's `config.toml` says it.
        pictures: how many.

    Raises:
        UsageError: these settings cannot run here.
    """

    serial = (MODEL, *WAITS)

    def __init__(self, name: str, task: Task, inputs: Inputs) -> None:
        settings = OURS[name]
        self.config = PredictConfig(
            model=task.model,
            score=task.score,
            min_size=task.min_size,
            max_size=task.max_size,
            device=task.device,
            **settings,
        )
        self.predictor = open_predictor(self.config, facts=facts_of_new(inputs, self.config))
        refuse_others(settings, self.predictor.resolved)
        self.inputs = inputs
        self.pictures = len(inputs.pictures)

    @property
    def resolved(self) -> dict[str, Any]:
        """See the class; read anew, since calibration and compiling may be settled by the first job."""
        return {k: v for k, v in self.predictor.resolved.items() if k not in _LONG}

    def run(self, out: Path) -> dict[str, float]:
        """Predict all pictures into a new folder `out`.

        Returns:
            Seconds by stage, of all threads together: stages overlap, so their sum may exceed the job's own time.

        Raises:
            DataError: a picture cannot be used.
        """
        times, inner = StageTimes(), StageTimes()
        if isinstance(self.predictor, HasStages):
            self.predictor.stages = inner
        options = JobOptions(output=out, command="predict folder")
        report = predict_job(
            self.inputs, self.config, options, opener=lambda _: self.predictor, times=times
        )
        if report.failed:
            raise DataError(_why(out, report.failed))
        return _stages(times.sums(), inner.sums())


def _stages(outer: Mapping[str, StageTime], inner: Mapping[str, StageTime]) -> dict[str, float]:
    """Seconds by stage in the order of the work; the model's own stages stand behind it."""
    found: dict[str, float] = {}
    for name in (*STAGES, *WAITS):
        if name in outer:
            found[name] = outer[name].wall
        if name == MODEL:
            found |= {f"{MODEL}: {part}": time.wall for part, time in inner.items()}
    return found


def refuse_others(settings: dict[str, Any], resolved: dict[str, Any]) -> None:
    """A contestant that runs as something else than its name says must not be timed under it."""
    for name, asked in settings.items():
        runs = resolved.get(name, _PLAIN.get(name))
        if asked not in ("auto", runs):
            raise UsageError(f"{name} {asked} was asked for, but {runs} is what runs here")


def _why(out: Path, failed: int) -> str:
    first = json.loads((out / FAILED).read_text(encoding="utf-8").splitlines()[0])
    return (
        f"{failed} pictures cannot be used, the first is {first['file']} ({first['error']}); "
        "take them out of the folder"
    )
