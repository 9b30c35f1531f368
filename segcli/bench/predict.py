"""`segcli bench predict`: the whole job, stock torchvision's and segcli's in turn, on the same pictures and weights."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from segcli.bench.compare import Comparison, Cut, compare
from segcli.bench.conv_peak import conv_peak
from segcli.bench.machine import describe_machine
from segcli.bench.predict_figures import Report, Row, median_stages, paired_spread
from segcli.bench.predict_inputs import QUICK_SIZES, quick_model, quick_pictures
from segcli.bench.predictors import CONTESTANTS, STOCK, Task
from segcli.bench.process import Process
from segcli.bench.results import Results, read_results
from segcli.bench.running import Running, take_turns
from segcli.bench.timing import Clock, CpuClock, CudaClock, Spread, spread
from segcli.config import PredictConfig
from segcli.console import say, warn
from segcli.device import resolve
from segcli.errors import UsageError
from segcli.prediction.walk import find_pictures

_ROUNDS, _QUICK_ROUNDS = 5, 1
_PACKAGES = ("numpy", "Pillow", "pycocotools", "openvino")


@dataclass(frozen=True)
class Settings:
    """What the user asked for.

    Attributes:
        pictures: the folder; None = two that are made up (quick only).
        model: MODEL; None = random weights (quick only).
        contestants: names beside stock, which always runs; none = all.
        scores: lowest score kept, a table for each.
        repeat: rounds in which all take turns; None = 5, and 1 where quick.
        limit: take only the first so many pictures.
        min_size: shorter side fed to the network, pixels; None = the model's own.
        max_size: longest side fed to the network, pixels; None = the model's own.
        threads: of the CPU; None = torch's own.
        device: as of `--device`.
        quick: to see that all runs: small sizes, one round.
    """

    pictures: Path | None = None
    model: str | None = None
    contestants: Sequence[str] = ()
    scores: Sequence[float] = ()
    repeat: int | None = None
    limit: int | None = None
    min_size: int | None = None
    max_size: int | None = None
    threads: int | None = None
    device: str = "auto"
    quick: bool = False


def run(settings: Settings) -> Report:
    """Measure.

    Raises:
        UsageError: settings that do not fit, or weights that stock torchvision cannot run.
        PredictionError: a contestant failed.
    """
    names = _names(settings)
    device = resolve(settings.device, "fp32").device
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"--device {device}: only cpu and cuda are timed; give --device cpu")
    with TemporaryDirectory(prefix="segcli-bench-") as folder:
        work = Path(folder)
        task = _task(settings, work)
        bench = _Bench(_start(settings, device), task, work, _rounds(settings))
        for score in tuple(dict.fromkeys(settings.scores)) or (PredictConfig().score,):
            bench.measure(replace(task, score=score), names)
    if bench.report.rows and not bench.report.rows[0].detections:
        warn("stock found nothing on these pictures, so nothing was compared; try a lower --score")
    for row in bench.report.wrong:
        assert row.comparison is not None
        warn(f"{row.name} at score {row.score:g} does not equal stock: {row.comparison.first}")
    return bench.report


def _names(settings: Settings) -> list[str]:
    """Stock first, then the others in their own order."""
    unknown = sorted(set(settings.contestants) - set(CONTESTANTS))
    if unknown:
        raise UsageError(f"--contestant {unknown[0]}: expected one of {', '.join(CONTESTANTS)}")
    wanted = {STOCK, *(settings.contestants or CONTESTANTS)}
    return [name for name in CONTESTANTS if name in wanted]


def _rounds(settings: Settings) -> int:
    return settings.repeat or (_QUICK_ROUNDS if settings.quick else _ROUNDS)


def _task(settings: Settings, work: Path) -> Task:
    """The job; what --quick makes up is made here."""
    pictures, model = settings.pictures, settings.model
    sizes = settings.min_size, settings.max_size
    if settings.quick:
        pictures = pictures or quick_pictures(work / "pictures")
        model = model or quick_model(work / "weights.safetensors")
        sizes = sizes[0] or QUICK_SIZES[0], sizes[1] or max(QUICK_SIZES[1], sizes[0] or 0)
    if pictures is None or model is None:
        lacks = "PICTURES" if pictures is None else "--model"
        raise UsageError(
            f"bench predict: {lacks} is missing; give a folder of pictures and --model"
        )
    if not find_pictures(pictures).pictures:
        raise UsageError(f"{pictures}: no pictures in it")
    return Task(
        pictures=str(pictures.resolve()),
        model=model,
        score=0.0,
        limit=settings.limit,
        min_size=sizes[0],
        max_size=sizes[1],
        device=settings.device,
        threads=settings.threads,
    )


def _start(settings: Settings, device: torch.device) -> Report:
    """Look at the machine and measure its convolutions, with the threads that the contestants will have."""
    before = torch.get_num_threads()
    torch.set_num_threads(settings.threads or before)
    try:
        clock: Clock = CudaClock(device) if device.type == "cuda" else CpuClock()
        machine = describe_machine(device, also=_PACKAGES)
        peak = conv_peak(device, clock, quick=settings.quick)
    finally:
        torch.set_num_threads(before)
    model = settings.model or "random weights"
    return Report(machine, str(device), model, conv_peak=peak, quick=settings.quick)


@dataclass
class _Bench:
    """A run under way.

    Attributes:
        report: what is found so far.
        task: without its score.
        work: folder for everything that is written.
        rounds: that are timed.
    """

    report: Report
    task: Task
    work: Path
    rounds: int

    def measure(self, task: Task, names: Sequence[str]) -> None:
        """All contestants with one score."""
        with ExitStack() as stack:
            running = {}
            for name in names:
                found = self._open(name, task, stack)
                if found is not None:
                    running[name] = found
            say(
                f"--score {task.score:g}: {', '.join(running)} in turn, {self.report.pictures} pictures, "
                f"{self.rounds} rounds after an untimed one"
            )
            times = take_turns(running, self.rounds)
            self.report.trunk_gflop = running[STOCK].process.ask("count")["trunk_gflop"]
        self._add_rows(task, running, times)

    def _open(self, name: str, task: Task, stack: ExitStack) -> Running | None:
        """Start and load a contestant; None, with the reason in the report, where it cannot run here."""
        work = self.work / f"{name}-{task.score:g}"
        with ExitStack() as own:
            process = own.enter_context(Process(name, threads=task.threads))
            try:
                reply = process.ask("open", contestant=name, task=task.to_dict())
            except UsageError as error:
                if name == STOCK:
                    raise
                self.report.absent[name] = str(error)
                say(f"{name}: cannot run here: {error}")
                return None
            stack.push(own.pop_all())
        self.report.pictures = reply["pictures"]
        return Running(process, work, reply["seconds"])

    def _add_rows(
        self, task: Task, running: dict[str, Running], times: dict[str, list[float]]
    ) -> None:
        keys = [found.key for found in find_pictures(Path(task.pictures)).pictures][: task.limit]
        cut = Cut(task.score, running[STOCK].replies[0]["resolved"]["max_detections"])
        stock = read_results(running[STOCK].first_output, keys)
        for name, contestant in running.items():
            mine = stock if name == STOCK else read_results(contestant.first_output, keys)
            ours = name != STOCK
            self.report.rows.append(
                self._row(
                    task.score,
                    contestant,
                    times[name],
                    detections=sum(map(len, mine)) / len(keys),
                    speedup=paired_spread(times[STOCK], times[name]) if ours else None,
                    comparison=_compare_all(stock, mine, cut, keys) if ours else None,
                )
            )

    def _row(
        self,
        score: float,
        c: Running,
        times: list[float],
        *,
        detections: float,
        speedup: Spread | None,
        comparison: Comparison | None,
    ) -> Row:
        last, pictures = c.replies[-1], self.report.pictures
        time = spread([ms / pictures for ms in times])
        fp32 = last["resolved"]["precision"] == "fp32"
        peak = "fp32" if fp32 else "bf16"
        least = self.report.trunk_gflop / self.report.conv_peak[peak].gflop_per_s * 1e3
        return Row(
            score=score,
            name=c.process.name,
            pictures=pictures,
            resolved=last["resolved"],
            time=time,
            speedup=speedup,
            peak_bytes=last["peak_bytes"],
            gpu_peak_bytes=last["gpu_peak_bytes"],
            open_s=c.open_s,
            first_s=c.replies[0]["seconds"],
            stages=median_stages([reply["stages"] for reply in c.replies[1:]], pictures),
            detections=detections,
            peak=peak,
            share=least / time.median,
            comparison=comparison,
            ok=comparison.equal if comparison is not None and fp32 else None,
        )


def _compare_all(stock: Results, ours: Results, cut: Cut, keys: Sequence[str]) -> Comparison:
    total = Comparison()
    for key, theirs, mine in zip(keys, stock, ours, strict=True):
        total += compare(theirs, mine, cut, key)
    return total
