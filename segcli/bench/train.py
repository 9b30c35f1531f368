"""`segcli bench train`: training steps of stock torchvision and of segcli in turn, on the same batches and weights."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from segcli.bench.machine import describe_machine
from segcli.bench.predict_figures import median_stages, paired_spread
from segcli.bench.process import Process
from segcli.bench.timing import Spread, spread
from segcli.bench.train_inputs import made_up_dataset
from segcli.bench.trainers import CONTESTANTS, STOCK, TrainTask
from segcli.console import progress, warn
from segcli.data.coco import read_coco
from segcli.data.locate import annotation_file
from segcli.device import resolve
from segcli.errors import UsageError

COMMAND = "segcli.bench.train_child"
_ROUNDS, _QUICK_ROUNDS, _QUICK_SIZES = 5, 1, (96, 160)
_NETWORK = ("forward", "backward", "optimiser")
# relative; mask targets of segcli come from patches of 56 × 56 cells, torchvision's from full-size masks
_TOLERANCE = {"loss_mask": 0.03}
_TOLERANCE_ELSE = 1e-3


@dataclass(frozen=True)
class TrainSettings:
    """What the user asked for.

    Attributes:
        dataset: annotations or their folder; None = pictures that are made up (quick only).
        images: folder of its pictures; None = looked for.
        model: ARCH or MODEL.
        contestants: names beside stock, which always runs; none = all.
        batch_size: pictures per step.
        pictures: how many are trained on; None = one batch.
        instances: fewest objects of a picture.
        repeat: rounds in which all take turns; None = 5, and 1 where quick.
        min_size: shorter side fed to the network, pixels; None = the model's own.
        max_size: longest side fed to the network, pixels; None = the model's own.
        threads: of the CPU; None = torch's own.
        device: as of `--device`.
        quick: to see that all runs: small sizes, one round.
    """

    dataset: Path | None = None
    images: Path | None = None
    model: str = "mask-rcnn-r50-fpn"
    contestants: Sequence[str] = ()
    batch_size: int = 2
    pictures: int | None = None
    instances: int = 1
    repeat: int | None = None
    min_size: int | None = None
    max_size: int | None = None
    threads: int | None = None
    device: str = "auto"
    quick: bool = False


@dataclass(frozen=True)
class TrainRow:
    """One contestant.

    Attributes:
        name: who.
        resolved: what ran.
        time: milliseconds per step, without making the batch.
        speedup: stock's time / this one's, of each round; None for stock.
        with_data: likewise with the time to make the batch.
        stages: milliseconds per step by stage, median over the rounds.
        peak_bytes: the most memory that its process ever held; None = unknown.
        step_bytes: of that, above what it held before its first step.
        gpu_peak_bytes: the most that torch held on the GPU; None without one.
        losses: of the first batch with equal samples.
        ok: whether an fp32 contestant's losses equal stock's; None where nobody asks for that.
    """

    name: str
    resolved: dict[str, Any]
    time: Spread
    speedup: Spread | None
    with_data: Spread | None
    stages: dict[str, float]
    peak_bytes: int | None
    step_bytes: int | None
    gpu_peak_bytes: int | None
    losses: dict[str, float]
    ok: bool | None


@dataclass
class TrainReport:
    """What a run found: the machine, the job, and a row per contestant."""

    machine: dict[str, Any]
    task: TrainTask
    quick: bool
    rows: list[TrainRow] = field(default_factory=list)

    @property
    def wrong(self) -> list[TrainRow]:
        """Rows whose losses had to equal stock's and do not."""
        return [row for row in self.rows if row.ok is False]


def run(settings: TrainSettings) -> TrainReport:
    """Measure.

    Raises:
        UsageError: settings that do not fit.
        PredictionError: a contestant failed.
    """
    unknown = sorted(set(settings.contestants) - set(CONTESTANTS))
    if unknown:
        raise UsageError(f"--contestant {unknown[0]}: expected one of {', '.join(CONTESTANTS)}")
    device = resolve(settings.device, "fp32").device
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"--device {device}: only cpu and cuda are timed; give --device cpu")
    wanted = {STOCK, *(settings.contestants or CONTESTANTS)}
    rounds = settings.repeat or (_QUICK_ROUNDS if settings.quick else _ROUNDS)
    with TemporaryDirectory(prefix="segcli-bench-") as folder:
        task = _task(settings, Path(folder))
        report = TrainReport(describe_machine(device), task, settings.quick)
        replies, facts = _measure(task, [n for n in CONTESTANTS if n in wanted], rounds)
    for name in replies:
        report.rows.append(_row(name, replies, facts))
    for row in report.wrong:
        warn(f"{row.name}: {_differing(row.losses, report.rows[0].losses)}")
    return report


def _task(settings: TrainSettings, work: Path) -> TrainTask:
    """The job; what --quick makes up is made here."""
    sizes = settings.min_size, settings.max_size
    count = settings.pictures or settings.batch_size
    source = None if settings.dataset is None else annotation_file(settings.dataset)
    if settings.quick:
        source = source or made_up_dataset(work / "data", count, settings.instances)
        sizes = sizes[0] or _QUICK_SIZES[0], sizes[1] or max(_QUICK_SIZES[1], sizes[0] or 0)
    if source is None:
        raise UsageError("bench train: DATASET is missing; give a COCO json or its folder")
    images = read_coco(source, settings.images).images  # the choice is said once, here
    return TrainTask(
        dataset=str(source.resolve()),
        images=None if images is None else str(images.resolve()),
        model=settings.model,
        batch_size=settings.batch_size,
        pictures=count,
        instances=settings.instances,
        min_size=sizes[0],
        max_size=sizes[1],
        device=settings.device,
        threads=settings.threads,
    )


def _measure(
    task: TrainTask, names: Sequence[str], rounds: int
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, dict[str, Any]]]:
    """Replies to each timed step, and what each said before, by name."""
    command = (sys.executable, "-m", COMMAND)
    replies: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with ExitStack() as stack, progress((rounds + 1) * len(names), "bench", "steps") as bar:
        running, facts = {}, {}
        for name in names:
            process = stack.enter_context(Process(name, threads=task.threads, command=command))
            facts[name] = process.ask("open", contestant=name, task=task.to_dict())
            facts[name] |= process.ask("losses")
            running[name] = process
        for turn in range(rounds + 1):
            shift = turn % len(names)
            for name in (*names[shift:], *names[:shift]):
                reply = running[name].ask("step")
                bar.update()
                if turn:  # the first is not timed
                    replies[name].append(reply)
    return replies, facts


def _row(
    name: str, replies: dict[str, list[dict[str, Any]]], facts: dict[str, dict[str, Any]]
) -> TrainRow:
    mine, last = replies[name], replies[name][-1]
    network, whole = ({n: _times(r, s) for n, r in replies.items()} for s in (_NETWORK, None))
    stock = name == STOCK
    fp32 = facts[name]["resolved"]["precision"] == "fp32"
    losses = facts[name]["losses"]
    equal = _differing(losses, facts[STOCK]["losses"]) is None
    return TrainRow(
        name=name,
        resolved=facts[name]["resolved"],
        time=spread(network[name]),
        speedup=None if stock else paired_spread(network[STOCK], network[name]),
        with_data=None if stock else paired_spread(whole[STOCK], whole[name]),
        stages=median_stages([reply["stages"] for reply in mine], 1),
        peak_bytes=last["peak_bytes"],
        step_bytes=last["step_bytes"],
        gpu_peak_bytes=last["gpu_peak_bytes"],
        losses=losses,
        ok=equal if fp32 and not stock else None,
    )


def _times(replies: list[dict[str, Any]], stages: Sequence[str] | None) -> list[float]:
    """Milliseconds of each step."""
    return [
        sum(ms for name, ms in reply["stages"].items() if stages is None or name in stages) * 1e3
        for reply in replies
    ]


def _differing(ours: dict[str, float], stock: dict[str, float]) -> str | None:
    """What is not stock's; None where all is."""
    for name, theirs in stock.items():
        limit = _TOLERANCE.get(name, _TOLERANCE_ELSE)
        if abs(ours[name] - theirs) > limit * abs(theirs) + 1e-6:
            return f"{name} of the first batch is {ours[name]:.6g}, stock has {theirs:.6g}"
    return None
