"""Settings: every default stands here once. `None` means the model's (or the machine's) own value.

Standard library only, so that `segcli --help` stays fast.
"""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from segcli.errors import UsageError
from segcli.version import __version__

SCHEMA = 1
MIN_TILE = 64  # pixels
MAX_OVERLAP = 0.75  # beyond it every pixel is looked at over 16 times
FILE_NAME = "config.toml"
# what a saved config.toml holds beside settings; skipped when it is read back as --config
INFORMATIVE = frozenset({"segcli", "schema", "command", "resolved"})


@dataclass(frozen=True)
class TrainConfig:
    """Settings of `segcli train`.

    Attributes:
        model: architecture, weights by name, checkpoint file or RUN folder to start from.
        epochs: passes over the data; None = from `steps`, or 12 where neither is given.
        steps: optimiser steps in all; wins over `epochs`.
        batch_size: pictures per step; None = the architecture's own.
        optimizer: `sgd` or `adamw`; None = the architecture's own.
        lr: peak learning rate; None = the architecture's own, scaled with the batch size.
        weight_decay: None = the architecture's own, 1e-4 with another optimiser.
        momentum: of sgd.
        schedule: `cosine` or `step` (× 0.1 at 8/12 and 11/12 of the steps).
        warmup: steps of linear warm-up.
        clip: largest gradient norm; 0 = no clipping.
        accumulate: batches per step; their losses are averaged.
        ema: decay of a moving average of the weights, which is then what is evaluated and saved; None = no average.
        freeze: stages of the backbone that keep their weights, `0` to `5`, or `backbone` for all of it with its
            pyramid; None = stem and first stage where batch norms are fixed and learned, else nothing.
        augment: names of augmentations, see `segcli.data.augment`.
        repeat_threshold: share of the pictures below which a class is rare, and its pictures come up more often; 0 =
            every picture once in an epoch.
        max_instances: most objects of a picture in one step, drawn anew every time; None = all.
        eval_every: epochs between evaluations on the validation set.
        eval_batch_size: pictures per forward pass in those; None = 1 on a CPU, 8 on a GPU, as `segcli eval`.
        patience: evaluations without a better mask AP after which training ends; None = it goes on to the end.
        max_dets: detections per picture in those evaluations.
        save_every: seconds between checkpoints within an epoch; 0 = after every step.
        max_bad_steps: steps in a row without a finite gradient after which training ends.
        box_loss: of the box head: `smooth-l1` and `l1` on deltas (the RPN's too), `giou`, `diou` or `ciou` on boxes.
        checkpointing: compute the backbone again in the backward pass: less memory, more time, the same weights.
        compile: let Inductor compile the trunk, which needs `lsj` among the augmentations; None = as the run's start
            chose, not compiled where this is it.
        tensorboard: write event files too.
        seed: of everything random.
        workers: processes that read pictures; None = the machine's cores less one, at most 4.
        min_size: shorter side fed to the network, pixels; None = the model's own.
        max_size: longest side fed to the network, pixels; None = the model's own.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        precision: `auto`, `fp32` or `bf16`.
        conventions: a preset's name or a file that wins over what the weights' file says; None = what it says.
        crowd_as_instance: train on `iscrowd` annotations as on any other.
    """

    model: str = "torchvision/mask-rcnn-r50-fpn-coco"
    epochs: int | None = None
    steps: int | None = None
    batch_size: int | None = None
    optimizer: str | None = None
    lr: float | None = None
    weight_decay: float | None = None
    momentum: float = 0.9
    schedule: str = "cosine"
    warmup: int = 100
    clip: float = 10.0
    accumulate: int = 1
    ema: float | None = None
    freeze: str | None = None
    augment: tuple[str, ...] = ("flip", "scale")
    repeat_threshold: float = 0.0
    max_instances: int | None = None
    eval_every: int = 1
    eval_batch_size: int | None = None
    patience: int | None = None
    max_dets: int = 100
    save_every: float = 300.0
    max_bad_steps: int = 5
    box_loss: str = "smooth-l1"
    checkpointing: bool = False
    compile: bool | None = None
    tensorboard: bool = False
    seed: int = 0
    workers: int | None = None
    min_size: int | None = None
    max_size: int | None = None
    device: str = "auto"
    precision: str = "auto"
    conventions: str | None = None
    crowd_as_instance: bool = False


@dataclass(frozen=True)
class PredictConfig:
    """Settings of `segcli predict` that change predictions.

    Attributes:
        model: checkpoint file, RUN folder or named weights.
        score: lowest score kept.
        max_detections: most objects per picture; None = the model's own.
        batch_size: pictures per forward pass; None = 1 on a CPU, 8 on a GPU.
        classes: names kept; empty = all.
        min_size: shorter side fed to the network, pixels; None = the model's own.
        max_size: longest side fed to the network, pixels; None = the model's own.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        precision: `auto`, `fp32`, `bf16` or `int8`.
        conventions: a preset's name or a file that wins over what the weights' file says; None = what it says.
        compile: on a CPU let Inductor compile the trunk, None = where the job is long enough to pay; on a GPU run CUDA
            graphs, None = where the model can.
        decode: `auto`, `cpu` or `nvjpeg` (JPEGs on the GPU, whose pixels are others); auto is the CPU.
        cpu_engine: `auto`, `torch` or `openvino`: what runs the trunk on a CPU.
        allow_truncated: use what can be read of a truncated picture.
        max_pixels: larger pictures are refused before they are decoded.
        tile: side in pixels of the tiles that larger pictures are cut into; None = pictures are taken whole. With it,
            the model's own limit of objects holds for each tile, and `max_detections` for each and for the picture.
        overlap: share of a tile's side that its neighbour shows too.
        tta: see every picture at several sizes and mirrored, and merge what is found.
    """

    model: str = ""
    score: float = 0.05
    max_detections: int | None = None
    batch_size: int | None = None
    classes: tuple[str, ...] = ()
    min_size: int | None = None
    max_size: int | None = None
    device: str = "auto"
    precision: str = "auto"
    conventions: str | None = None
    compile: bool | None = None
    cpu_engine: str = "auto"
    decode: str = "auto"
    allow_truncated: bool = False
    max_pixels: int = 300_000_000
    tile: int | None = None
    overlap: float = 0.2
    tta: bool = False


@dataclass(frozen=True)
class DrawConfig:
    """How overlays look.

    Attributes:
        draw_score: lowest score that is drawn.
        color_by: `class` or `instance`.
        opacity: of the fill, 0..1.
        style: `fill` or `outline`.
        labels: write class and score on each object.
    """

    draw_score: float = 0.5
    color_by: str = "class"
    opacity: float = 0.45
    style: str = "fill"
    labels: bool = True


class _DataclassInstance(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


def to_settings(config: _DataclassInstance) -> dict[str, Any]:
    """A config as plain TOML values; what is None is left out, since TOML has no null."""
    values: dict[str, Any] = asdict(config)
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if value is not None
    }


def dump(command: str, settings: dict[str, Any], resolved: dict[str, Any]) -> str:
    """The text of a `config.toml`: settings as given, and what they resolved to."""
    import tomli_w  # only where something is written

    head = {"segcli": __version__, "schema": SCHEMA, "command": command}
    return tomli_w.dumps({**head, "settings": settings, "resolved": _without_none(resolved)})


def _without_none(table: dict[str, Any]) -> dict[str, Any]:
    """TOML has no null, at any depth."""
    return {
        key: _without_none(value) if isinstance(value, dict) else value
        for key, value in table.items()
        if value is not None
    }


def load(path: Path) -> dict[str, Any]:
    """Read a TOML file whole.

    Raises:
        UsageError: the file is absent or no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot read settings ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not a TOML file ({error})") from error


def load_settings(path: Path) -> dict[str, Any]:
    """Settings of a hand-written TOML (flags by long name) or of a saved `config.toml`."""
    table = load(path)
    flat = {k: v for k, v in table.items() if k not in INFORMATIVE and k != "settings"}
    nested = table.get("settings", {})
    if not isinstance(nested, dict):
        raise UsageError(f"{path}: `settings` should be a table, found {type(nested).__name__}")
    return {key.replace("-", "_"): value for key, value in {**nested, **flat}.items()}
