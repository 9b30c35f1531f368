"""TensorBoard as an extra: the numbers of `metrics.jsonl` as event files in `RUN/tensorboard`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from segcli.errors import UsageError

FOLDER = "tensorboard"
_FLUSH_SECONDS = 10  # how much a kill may lose; metrics.jsonl loses nothing


class TensorBoard:
    """Writes scalars. Used from one process of a run.

    Args:
        run: RUN; event files go to `RUN/tensorboard`.
        step: a resumed run's last step, 0 of a new one: what an earlier start, or the run that stood here before it,
            wrote beyond it is hidden.

    Raises:
        UsageError: the extra is not installed.
    """

    def __init__(self, run: Path, *, step: int = 0) -> None:
        check_installed()
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(
            str(run / FOLDER),
            purge_step=step + 1,
            flush_secs=_FLUSH_SECONDS,
        )

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Write one line of the log: its numbers, nested ones as `val/mask/AP`; the rest is left out."""
        for name, value in scalars(values):
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is waiting, and end."""
        self._writer.close()

    def __enter__(self) -> TensorBoard:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def check_installed() -> None:
    """Refuse early, before any work is done.

    Raises:
        UsageError: the extra is not installed.
    """
    try:
        import tensorboard  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"--tensorboard: TensorBoard cannot be imported ({error}); "
            "install it with pip install 'segcli[tensorboard]', or leave the flag out"
        ) from error


def scalars(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a line of the log, with the names that group them in TensorBoard.

    `loss_mask` becomes `loss/mask`, `lr` and the like `train/lr`, an evaluation's AP `val/mask/AP`. `step` is left out.
    """
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from scalars(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool) and name != "step":
            yield _tag(f"{prefix}{name}"), float(value)


def _tag(name: str) -> str:
    if name == "loss":
        return "loss/total"
    if name.startswith("loss_"):
        return f"loss/{name.removeprefix('loss_')}"
    return name if "/" in name else f"train/{name}"
