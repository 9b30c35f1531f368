"""What happens around the steps: figures taken in, checkpoints, evaluations, and the end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from segcli.console import say, warn
from segcli.data.batch import Batch
from segcli.device import Compute
from segcli.errors import DataError, ModelError, PredictionError, Terminated, TrainingError
from segcli.prediction.reasons import first_line
from segcli.training.checkpoint import save_last
from segcli.training.log import TrainingLog
from segcli.training.loop import train_epoch
from segcli.training.memory import validation_memory_named
from segcli.training.parallel import LossNetwork
from segcli.training.report import NAME as REPORT
from segcli.training.report import write_report
from segcli.training.results import measure_shared, save_best
from segcli.training.state import TrainState
from segcli.training.steps import StepFigures, StepReader, StepReport
from segcli.training.stopping import StopRequest

if TYPE_CHECKING:
    from segcli.training.job import Job

# between epochs saving may take this share of the time
_SAVING = 0.05


class Session:
    """One start of a run.

    Args:
        job: the run.
        state: changed in place.
        log: `metrics.jsonl` and the bar.
        stop: whether somebody asked for the end.
    """

    def __init__(self, job: Job, state: TrainState, log: TrainingLog, stop: StopRequest) -> None:
        self.job = job
        self.state = state
        self.progress = state.progress
        self.log = log
        self.stop = stop
        self.saver = Saver(job, state, log)
        self.reader = StepReader(job.compute.device, job.world)
        self.seen = 0  # pictures of this epoch
        self._named: set[tuple[str, str]] = set()

    def train(self, batches: Iterator[Batch], length: int, losses_of: LossNetwork) -> None:
        """To the end of the run, from wherever it stands; an evaluation that was cut off comes first.

        Args:
            batches: of the epoch that `progress` names, and of those after it.
            length: batches of a whole epoch.
            losses_of: the network.

        Raises:
            TrainingError: no picture of an epoch can be read, too many steps in a row broke, or memory is short.
        """
        rules, progress = self.job.rules(), self.progress
        while True:
            if progress.step > progress.evaluated and self._epoch_is_over():
                self._conclude_epoch()
            if self._is_over():
                break
            whole, self.seen = progress.batch == 0, 0
            ending = train_epoch(
                self.state, losses_of, batches, length,
                rules=rules, stop=lambda: self.stop.number is not None, report=self.take,
            )  # fmt: skip
            self._take_in(self.reader.rest())
            if ending:
                self._end_early()
            if progress.batch >= length:
                progress.epoch, progress.batch = progress.epoch + 1, 0
                if whole and not self.seen:
                    name = self.job.material.name
                    raise TrainingError(f"{name}: not one of its pictures can be read")
        self._say_patience()
        self.saver.save()
        if self.job.world.is_main:
            self._final_report()

    def take(self, report: StepReport) -> None:
        """Take in a step.

        Raises:
            TrainingError: too many steps in a row broke.
        """
        self._take_in(self.reader.take(report))
        self.saver.save_sometimes()

    def _take_in(self, figures: list[StepFigures]) -> None:
        for each in figures:
            self.seen += each.pictures
            if each.broken is None:
                self.progress.skipped_in_row = 0
                self.log.step(each)
            else:
                self._skipped(each, each.broken)

    def name_left_out(self, batch: Batch) -> None:
        """Name the pictures that are left out, and those of which not all objects are looked at.

        Of the latter, which may be most, only the first is said; the others stand in `metrics.jsonl`.
        """
        for picture in batch.unreadable:
            reason = f"left out of training: {picture.reason}"
            self._name("unreadable picture", picture.file_name, reason)
        for thin in batch.thinned:
            reason = f"{thin.file_name}: {thin.kept} of its {thin.objects} objects at a time (--max-instances)"
            first = not any(event == "objects left out" for event, _ in self._named)
            self._name("objects left out", thin.file_name, reason, said=first)

    def _name(self, event: str, file_name: str, reason: str, *, said: bool = True) -> None:
        """Once for each picture."""
        if (event, file_name) not in self._named:
            self._named.add((event, file_name))
            self.log.event(event, reason, [file_name], said=said)

    def _skipped(self, figures: StepFigures, broken: str) -> None:
        progress, limit = self.progress, self.job.config.max_bad_steps
        progress.skipped += 1
        progress.skipped_in_row += 1
        names = ", ".join(figures.files)
        reason = f"step {figures.step}: {broken} on {names}"
        if progress.skipped_in_row < limit:
            self.log.event("skipped step", f"{reason}; skipped", figures.files)
            return
        raise TrainingError(
            f"{reason}; broken step {limit} in a row (--max-bad-steps {limit}); the last good checkpoint is "
            "kept; look at these pictures' annotations, or lower --lr"
        )

    def _epoch_is_over(self) -> bool:
        return self.progress.batch == 0 or self.progress.step >= self.job.steps

    def _is_over(self) -> bool:
        """Whether the run's steps, or its patience, are used up."""
        patience = self.job.config.patience
        return self.progress.step >= self.job.steps or (
            patience is not None and self.progress.stale >= patience
        )

    def _conclude_epoch(self) -> None:
        """Save, then evaluate where it is time to; without validation the last weights are the best."""
        progress, final = self.progress, self.progress.step >= self.job.steps
        self.log.flush()
        if self.job.val is None:
            if final or self.saver.is_cheap():
                progress.evaluated = progress.step
                self._keep(None)
                self.saver.save()
            self._say("")
        elif final or progress.epoch % self.job.config.eval_every == 0:
            self.saver.save()
            with self.stop.at_once():
                self._evaluate()
            if self.saver.is_cheap():
                self.saver.save()
        elif self.saver.is_cheap():
            self.saver.save()
        progress.evaluated = progress.step
        if self.job.world.is_main:
            write_report(self.job.folder, steps=self.job.steps)

    def _evaluate(self) -> None:
        job, progress = self.job, self.progress
        assert job.val is not None
        with validation_memory_named():
            metrics = measure_shared(
                self.state.result, job.model, job.val, job.compute,
                max_dets=job.config.max_dets, world=job.world, batch_size=job.config.eval_batch_size,
            )  # fmt: skip
        ap = None if metrics is None or metrics.mask is None else metrics.mask["AP"]
        ap = job.world.share(ap)
        better = progress.best_ap is None or (ap is not None and ap > progress.best_ap)
        progress.stale = 0 if better else progress.stale + 1
        if better:
            progress.best_ap, progress.best_epoch = ap, progress.epochs_begun
        progress.evaluated = progress.step
        if metrics is not None:
            val = {"box": metrics.box, "mask": metrics.mask}
            self.log.write({"val": {**val, "per_class": [c.to_json() for c in metrics.per_class]}})
            if better:
                self._keep(val)
        shown = "-" if ap is None else f"{ap:.3f}"
        self.log.bar.set_description(f"train (mask AP {shown})", refresh=False)
        self._say(f"mask AP {shown}{' (best so far)' if better else ''}, ")

    def _keep(self, val: dict[str, Any] | None) -> None:
        job = self.job
        if job.world.is_main:
            save_best(
                job.folder, job.model, self.state.result, self.progress,
                max_dets=job.config.max_dets, val=val,
            )  # fmt: skip

    def _say(self, measured: str) -> None:
        now, loss = self.progress, self.log.loss
        shown = (
            f"loss {loss:.3f}, " if loss == loss else ""
        )  # none before the first step of this start
        say(
            f"epoch {now.epochs_begun}, step {now.step}/{self.job.steps}: {measured}{shown}"
            f"{now.seconds:.0f} s of training"
        )

    def _say_patience(self) -> None:
        """That the run ends before its last step."""
        now, patience = self.progress, self.job.config.patience
        if now.step < self.job.steps:
            assert now.best_ap is not None  # until there is one, every validation counts as better
            say(
                f"ended by --patience {patience} after epoch {now.epoch}, step {now.step}/{self.job.steps}: "
                f"no better mask AP than {now.best_ap:.3f} of epoch {now.best_epoch}"
            )

    def _final_report(self) -> None:
        """With pictures, where they can be made: a run whose weights are saved does not fail for those."""
        job = self.job
        exact = Compute(job.compute.device, "fp32")
        try:
            write_report(job.folder, steps=job.steps, val=job.val, compute=exact)
        except (PredictionError, ModelError, DataError, RuntimeError, MemoryError) as error:
            warn(f"{job.folder / REPORT}: has no pictures ({first_line(error)})")
            write_report(job.folder, steps=job.steps)

    def _end_early(self) -> None:
        """Save, let every process come here, and end as the signal says."""
        self.log.flush()
        self.saver.save()
        if self.job.world.is_main:
            write_report(self.job.folder, steps=self.job.steps)
        self.job.world.wait()
        self.stop.obey()
        raise Terminated  # another process was asked to


class Saver:
    """Decides when a checkpoint is worth its time; only rank 0 writes.

    Args:
        job: the run.
        state: what is saved.
        log: of which the length is saved.
    """

    def __init__(self, job: Job, state: TrainState, log: TrainingLog) -> None:
        self.job = job
        self.state = state
        self.log = log
        self.cost = 0.0  # seconds that the last one took
        self._since = time.monotonic()
        self._saved: dict[str, Any] | None = None

    def save(self) -> None:
        """Write a checkpoint, unless the last one says the same."""
        now = asdict(self.state.progress)
        if not self.job.world.is_main or now == self._saved:
            return
        started = time.monotonic()
        save_last(self.job.folder, self.job.model, self.state, metrics_bytes=self.log.bytes)
        self._saved, self._since = now, time.monotonic()
        self.cost = self._since - started

    def save_sometimes(self) -> None:
        """Within an epoch: every `save_every` seconds."""
        if time.monotonic() - self._since >= self.job.config.save_every:
            self.save()

    def is_cheap(self) -> bool:
        """Between epochs: whether saving now costs less than a twentieth of the time."""
        return time.monotonic() - self._since >= self.cost / _SAVING
