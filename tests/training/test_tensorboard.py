"""TensorBoard's event files, and a clear word where it is not installed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from segcli.errors import UsageError
from segcli.training.tensorboard import FOLDER, TensorBoard, check_installed, scalars

LINE: dict[str, Any] = {
    "step": 20,
    "epoch": 1,
    "loss": 2.0,
    "loss_mask": 0.5,
    "lr": 0.1,
    "note": "x",
    "ok": True,
}


def _events(run: Path) -> dict[str, list[tuple[int, float]]]:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="the extra segcli[tensorboard] is not installed",
    )
    found = accumulator.EventAccumulator(str(run / FOLDER), purge_orphaned_data=True)
    found.Reload()
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, {}),
        (LINE, {"train/epoch": 1, "loss/total": 2, "loss/mask": 0.5, "train/lr": 0.1}),
        (
            {"val": {"mask": {"AP": 0.5, "APl": None}, "box": None, "per_class": [{"name": "a"}]}},
            {"val/mask/AP": 0.5},
        ),
    ],
    ids=["nothing", "training", "evaluation"],
)
def test_which_numbers_are_written(values: dict[str, Any], expected: dict[str, float]) -> None:
    """Numbers only, grouped by what they are."""
    assert dict(scalars(values)) == expected


def test_absent_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Wrong usage, with the command that installs it; nothing is written."""
    monkeypatch.setitem(sys.modules, "tensorboard", None)

    with pytest.raises(UsageError, match=r"pip install 'segcli\[tensorboard\]'"):
        check_installed()
    with pytest.raises(UsageError):
        TensorBoard(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_scalars_reach_the_event_file(tmp_path: Path) -> None:
    """What the log writes can be read back by TensorBoard."""
    pytest.importorskip("tensorboard", reason="the extra segcli[tensorboard] is not installed")
    with TensorBoard(tmp_path) as board:
        board.write(20, LINE)
        board.write(40, {"loss": float("nan"), "val": {"mask": {"AP": 0.25}}})
    found = _events(tmp_path)

    assert found["loss/mask"] == [(20, 0.5)]
    assert found["val/mask/AP"] == [(40, 0.25)]
    assert [step for step, _ in found["loss/total"]] == [20, 40]


def test_a_resumed_run_hides_what_it_repeats(tmp_path: Path) -> None:
    """Of a run stopped at step 60 and resumed from step 20, the new steps count."""
    pytest.importorskip("tensorboard", reason="the extra segcli[tensorboard] is not installed")
    with TensorBoard(tmp_path) as board:
        for step in (20, 40, 60):
            board.write(step, {"lr": 1.0})
    with TensorBoard(tmp_path, step=20) as board:
        board.write(30, {"lr": 2.0})

    assert _events(tmp_path)["train/lr"] == [(20, 1.0), (30, 2.0)]


def test_a_new_run_hides_the_one_that_stood_there(tmp_path: Path) -> None:
    """Of a run that was started anew over an old one, only its own steps are shown."""
    pytest.importorskip("tensorboard", reason="the extra segcli[tensorboard] is not installed")
    for value, steps in ((1.0, (1, 20, 40)), (2.0, (30,))):
        with TensorBoard(tmp_path, step=0) as board:
            for step in steps:
                board.write(step, {"lr": value})

    assert _events(tmp_path)["train/lr"] == [(30, 2.0)]
