"""What a run has come to: the validation set measured, shared by the processes; the best weights kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from segcli.annotations import Dataset, Picture
from segcli.config import PredictConfig
from segcli.device import Compute
from segcli.errors import OutputError
from segcli.models import MaskRCNN
from segcli.training.progress import Progress
from segcli.training.world import World
from segcli.zoo import LoadedModel, save_model

if TYPE_CHECKING:
    from pathlib import Path

    from segcli.evaluation.metrics import Metrics
    from segcli.instances import Instances

BEST = "best.safetensors"


def measure_shared(
    network: MaskRCNN,
    model: LoadedModel,
    val: Dataset,
    compute: Compute,
    *,
    max_dets: int,
    world: World,
    batch_size: int | None = None,
) -> Metrics | None:
    """Metrics on `val`, as `segcli eval` gives them (fp32): every process predicts its share, rank 0 measures.

    Batches are the same as with one process, and no picture is seen twice, so the figures are the same too.

    Args:
        network: the weights to measure.
        model: its record, for the classes.
        val: the truth.
        compute: of the run; only its device counts.
        max_dets: detections per picture.
        world: the processes.
        batch_size: pictures per forward pass; None = the predictor's own.

    Returns:
        None on ranks other than 0.

    Raises:
        PredictionError: the network failed on a batch.
    """
    from segcli.evaluation.model import detect, evaluate_predictor
    from segcli.prediction.predictor import Predictor

    settings = PredictConfig(max_detections=max_dets, batch_size=batch_size)
    exact = Compute(compute.device, "fp32")
    predictor = Predictor(network, model.categories, exact, config=settings)
    if world.size == 1:
        return evaluate_predictor(predictor, val, max_dets=max_dets)
    share = share_of(val.pictures, predictor.batch_size, world)
    number = {picture.id: i for i, picture in enumerate(val.pictures)}
    mine = detect(predictor, replace(val, pictures=share), batch_size=predictor.batch_size)
    parts = world.gather([(number[picture.id], found) for picture, found in mine])
    if parts is None:
        return None
    everything: list[tuple[int, Instances]] = sorted(chain(*parts), key=lambda pair: pair[0])
    found = [(val.pictures[i], instances) for i, instances in everything]
    return evaluate_predictor(predictor, val, max_dets=max_dets, found=found)


def share_of(pictures: Sequence[Picture], batch_size: int, world: World) -> tuple[Picture, ...]:
    """Every `world.size`-th batch of the readable pictures, none of them twice."""
    there = [picture for picture in pictures if picture.path is not None]
    starts = range(world.rank * batch_size, len(there), world.size * batch_size)
    return tuple(chain.from_iterable(there[start : start + batch_size] for start in starts))


def save_best(
    folder: Path,
    model: LoadedModel,
    network: MaskRCNN,
    progress: Progress,
    *,
    max_dets: int,
    val: dict[str, Any] | None,
) -> None:
    """Write `best.safetensors` with what is known about its weights.

    Args:
        folder: RUN.
        model: what training started from.
        network: with the weights.
        progress: of the run.
        max_dets: of the evaluation.
        val: `box` and `mask` metrics; None = not measured.

    Raises:
        OutputError: it cannot be written; the best weights until now, if any, stay as they are.
    """
    info = {
        **{key: model.info[key] for key in ("licence",) if key in model.info},
        "started_from": model.source,
        "epoch": progress.epochs_begun,
        "step": progress.step,
        "max_dets": max_dets,
        "val": val,
    }
    state = {name: value.cpu() for name, value in network.state_dict().items()}
    try:
        save_model(folder / BEST, replace(model, state=state, info=info))
    except OSError as error:
        raise OutputError(
            f"{folder / BEST}: cannot be written ({error.strerror}); make room, then run again with --resume"
        ) from error
