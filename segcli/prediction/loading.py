"""From MODEL and settings to a predictor that is ready: weights, device, engine, tiles."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from segcli.config import PredictConfig
from segcli.console import say
from segcli.device import Compute, resolve, roi_align_on
from segcli.errors import UsageError
from segcli.models import ARCHITECTURES
from segcli.models.inference import Trunk, TrunkEngine
from segcli.models.roi_align import explain
from segcli.models.roi_align.backends import interpreting
from segcli.prediction import compiled
from segcli.prediction.cpu_engine import (
    EngineChoice,
    EngineRequest,
    check_request,
    make_trunk_engine,
)
from segcli.prediction.facts import NO_FACTS, JobFacts
from segcli.prediction.gpu_decode import GpuDecoder, check_decode
from segcli.prediction.gpu_engine import runs_graphs
from segcli.prediction.gpu_reader import SAMPLE as DECODE_SAMPLE
from segcli.prediction.gpu_reader import say_decode_cost
from segcli.prediction.gpu_trial import graphs_or_plain
from segcli.prediction.int8_cost import SAMPLE, cost_of_int8
from segcli.prediction.lanes import lanes_for
from segcli.prediction.openvino_runtime import runtime
from segcli.prediction.pipeline import PicturePredictor
from segcli.prediction.predictor import Predictor
from segcli.prediction.tiling import TiledPredictor
from segcli.prediction.tta import AugmentedPredictor
from segcli.preprocess import PreparedPicture, collate, prepare, with_sizes
from segcli.zoo import LoadedModel, load_model

_SECONDS_TO_COMPILE = 60.0
_SECONDS_SAVED = 0.05
"""Per picture of 800 × 1088 by R50's trunk, on two cores; trunks of fewer channels save as much less."""


def open_predictor(
    config: PredictConfig, roi_align: str = "auto", *, facts: JobFacts = NO_FACTS
) -> PicturePredictor:
    """Load MODEL and make it ready; with `config.tile`, for large pictures.

    Args:
        config: all settings.
        roi_align: which RoIAlign runs.
        facts: for choices that depend on the job.

    Raises:
        UsageError: no such model, or a setting that does not fit it.
        ModelError: the model's file cannot be used.
    """
    model = load_model(config.model, config.conventions)
    predictor = predictor_for(model, config, roi_align, facts=facts)
    if config.tta:
        assert isinstance(predictor, Predictor)
        predictor = AugmentedPredictor(predictor)
    if config.tile is None:
        return predictor
    limit = config.max_detections
    return TiledPredictor(predictor, config.tile, config.overlap, max_detections=limit)


def predictor_for(
    model: LoadedModel,
    config: PredictConfig,
    roi_align: str = "auto",
    *,
    facts: JobFacts = NO_FACTS,
) -> PicturePredictor:
    """A predictor of weights in memory; says once what runs.

    Returns:
        A `Predictor`, or on a GPU, where the network can run in fixed shapes, one by CUDA graphs.
    """
    compute = resolve(config.device, config.precision)
    decode = "nvjpeg" if check_decode(config.decode, compute.device) else "cpu"
    chosen = roi_align_on(compute.device, roi_align)
    engines = _Engines(model, config, compute, facts, chosen)
    network = model.build(roi_align)
    plain = Predictor(network, model.categories, compute, config=config, engine=engines.make)
    plain.resolved |= {
        "model_sha256": model.sha256, "roi_align": chosen, "decode": decode, **engines.resolved
    }  # fmt: skip
    plain.with_lanes(engines.lanes())
    shared = f" in {plain.lanes} lanes" if plain.lanes > 1 else ""
    say(
        f"model {model.source}: {model.spec.architecture}, {len(model.categories)} classes; "
        f"{compute.describe()}, {engines.line}{shared}; RoIAlign: {explain(roi_align, compute.device)}; "
        f"size {plain.preprocess.min_size}–{plain.preprocess.max_size}, batch {plain.batch_size}"
    )
    engines.say_cost(plain)
    if decode == "nvjpeg" and not facts.recorded:
        say_decode_cost(GpuDecoder(compute.device), facts.files(DECODE_SAMPLE))
    if not engines.graphs:
        return plain
    return graphs_or_plain(network, plain, required=engines.graphs_required)


class _Engines:
    """Chooses and makes what runs the trunk.

    Attributes:
        line: what runs, for the start line; after `make`.
        graphs: CUDA graphs run, and the trunk's engine is only for what does not fit them.
        resolved: likewise, for `config.toml`.

    Raises:
        UsageError: what is asked for cannot run here, or does not go together.
    """

    def __init__(
        self,
        model: LoadedModel,
        config: PredictConfig,
        compute: Compute,
        facts: JobFacts,
        roi_align: str,
    ) -> None:
        check_request(config.cpu_engine, config.precision, compute.device.type)
        self._model, self._config, self._compute, self._facts = model, config, compute, facts
        self._on_cpu = compute.device.type == "cpu" and not interpreting()
        self._compile = self._compiles()
        self._exact: Trunk | None = None
        self.line, self.graphs = "torch", False
        if not self._on_cpu:
            self.graphs, self.line = runs_graphs(
                model.spec, replace(config, compile=self._compile), compute.device, roi_align
            )
        compiles = bool(self._compile) if self._on_cpu else self.graphs
        self.resolved: dict[str, Any] = {"compile": compiles}

    @property
    def graphs_required(self) -> bool:
        """Graphs are asked for, or an earlier start of the job ran them."""
        return self.graphs and bool(self._compile)

    def make(self, trunk: Trunk, own: Callable[[Trunk], TrunkEngine]) -> TrunkEngine:
        """The engine of a float32 trunk; `own` makes torch's."""
        if not self._on_cpu:
            return own(trunk)
        if self._compile:
            self._take("torch, compiled", {"cpu_engine": "torch"})
            return compiled.compiled_trunk(trunk.to_type(self._compute.dtype), self._model.sha256)
        if self._compute.precision == "int8":
            self._exact = deepcopy(trunk)
        request = EngineRequest(
            engine=self._config.cpu_engine,
            precision=self._compute.precision,
            pictures=self._facts.pictures,
            first=lambda count: [self._batch(p) for p in self._prepared(count)],
            recorded=self._facts.recorded,
        )
        choice: EngineChoice = make_trunk_engine(trunk, own, request)
        self._take(choice.line, choice.resolved)
        return choice.engine

    def lanes(self) -> int:
        """Batches side by side; after `make`. Other engines than torch's own have threads of their own."""
        config = self._config
        plain = self._on_cpu and not self._compile and self.resolved.get("cpu_engine") == "torch"
        if not plain or config.tile is not None or config.tta or self._facts.in_turn:
            return 1
        return lanes_for(
            self._model.spec.architecture,
            self._facts.pictures,
            torch.get_num_threads(),
            self._facts.recorded,
        )

    def say_cost(self, predictor: Predictor) -> None:
        """What int8 costs, on the job's first pictures; said once, when the job begins."""
        if self._exact is None or self._facts.recorded:
            return
        int8, exact = predictor.detector.trunk, self._exact

        def run(images: Tensor) -> Any:
            return Trunk.grouped(exact(images))

        def detect(engine: TrunkEngine, picture: PreparedPicture) -> Any:
            predictor.detector.trunk = engine
            return predictor.predict([picture])[0]

        try:
            say(cost_of_int8(run, int8, self._prepared(SAMPLE), detect).line())
        finally:
            predictor.detector.trunk = int8
            self._exact = None

    def _take(self, line: str, resolved: dict[str, Any]) -> None:
        self.line = line
        self.resolved |= resolved

    def _prepared(self, count: int) -> list[PreparedPicture]:
        preprocess = self._model.spec.conventions.preprocess
        sizes = with_sizes(preprocess, self._config.min_size, self._config.max_size)
        return [prepare(image, sizes) for image in self._facts.first(count)]

    def _batch(self, picture: PreparedPicture) -> Tensor:
        multiple = self._model.spec.conventions.preprocess.pad_multiple
        return collate([picture.tensor], multiple)[0]

    def _compiles(self) -> bool | None:
        """What is asked for or was chosen before; else, on a CPU, whether it pays, and elsewhere None."""
        config, recorded = self._config, self._facts.recorded
        openvino = config.cpu_engine == "openvino" or config.precision == "int8"
        if config.compile and openvino:
            raise UsageError(
                "--compile is for torch, found OpenVINO; use --no-compile or --cpu-engine torch"
            )
        if config.compile is not None:
            return config.compile
        if "compile" in recorded:
            return bool(recorded["compile"])
        if not self._on_cpu:
            return None
        if openvino or (config.cpu_engine == "auto" and _has_openvino()):
            return False
        return _pays(self._model, self._facts.passes(config))


def _has_openvino() -> bool:
    try:
        runtime()
    except UsageError:
        return False
    return True


def _pays(model: LoadedModel, passes: int) -> bool:
    """Whether compiling takes less time than it saves; never where there is no compiler.

    Args:
        model: to be compiled.
        passes: of a picture, or of a tile or a view of one, through the network.
    """
    channels = ARCHITECTURES[model.spec.architecture].fpn_channels
    saved = _SECONDS_SAVED * (channels / 256) ** 2 * passes
    return saved > _SECONDS_TO_COMPILE and compiled.why_not() is None
