"""`last.ckpt` and `previous.ckpt`: whole, checked, and never both lost."""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

from segcli.categories import Categories
from segcli.errors import ModelError, OutputError
from segcli.models import ARCHITECTURES, Anchors, ModelSpec
from segcli.training.checkpoint import load_last, save_last
from segcli.training.optim import build_optimizer
from segcli.training.progress import Progress
from segcli.training.state import TrainState
from segcli.zoo import LoadedModel

NANO = "mask-rcnn-nano"
SPEC = ModelSpec(NANO, 1, Anchors(), ARCHITECTURES[NANO].conventions)
MODEL = LoadedModel(SPEC, Categories.from_names(["cell"]), {}, NANO, "", {"seed": 3})


def _state(step: int) -> TrainState:
    """A small stand-in for the network, after `step` steps of AdamW."""
    torch.manual_seed(0)
    network = nn.Linear(4, 2)
    optimizer = build_optimizer(network, "adamw", lr=0.1, weight_decay=0.0, momentum=0.0)
    for _ in range(step):
        network(torch.ones(1, 4)).square().sum().backward()
        optimizer.step()
    return TrainState(cast(Any, network), optimizer, None, Progress(step=step, batch=step))


def _save(folder: Path, *steps: int) -> None:
    for step in steps:
        save_last(folder, MODEL, _state(step), metrics_bytes=step)


def test_nothing_saved(tmp_path: Path) -> None:
    """A run that was never saved starts anew."""
    assert load_last(tmp_path) is None


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    """Weights, optimiser, progress and record, bit for bit; a second state takes up where the first stood."""
    _save(tmp_path, 3)
    found = load_last(tmp_path)
    assert found is not None
    assert found.progress == Progress(step=3, batch=3)
    assert found.metrics_bytes == 3
    assert found.record["info"] == {"seed": 3}
    fresh = _state(0)
    fresh.restore(found.tensors, found.progress)
    before = _state(3)
    for state in (fresh, before):
        state.optimizer.zero_grad()
        state.network(torch.ones(1, 4)).square().sum().backward()
        state.optimizer.step()
    assert torch.equal(cast(Any, fresh.network).weight, cast(Any, before.network).weight)
    assert fresh.progress.step == 3


def test_the_one_before_is_kept(tmp_path: Path) -> None:
    """Two files, nothing half-written beside them."""
    _save(tmp_path, 1, 2, 3)
    assert {p.name for p in tmp_path.iterdir()} == {"last.ckpt", "previous.ckpt"}
    (tmp_path / "last.ckpt").unlink()
    found = load_last(tmp_path)
    assert found is not None
    assert found.progress.step == 2


def _flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(_flip, id="one bit"),
        pytest.param(lambda content: content[:-100], id="cut off"),
        pytest.param(lambda content: content[:0], id="empty"),
        pytest.param(lambda content: b"PK" + content, id="another file"),
    ],
)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    damage: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is named, and replaced, so that the next save does not push the good one out."""
    _save(tmp_path, 1, 2)
    last = tmp_path / "last.ckpt"
    last.write_bytes(damage(last.read_bytes()))
    found = load_last(tmp_path)
    assert found is not None
    assert found.progress.step == 1
    warning = capsys.readouterr().err
    assert "last.ckpt: damaged checkpoint" in warning
    assert "previous.ckpt: used in its place, from step 1" in warning
    again = load_last(tmp_path)
    assert again is not None
    assert again.progress.step == 1


def test_both_damaged(tmp_path: Path) -> None:
    """An error with what to do, not a run that silently starts anew."""
    _save(tmp_path, 1, 2)
    for name in ("last.ckpt", "previous.ckpt"):
        (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"last\.ckpt: damaged checkpoint .*--overwrite"):
        load_last(tmp_path)


def test_another_schema(tmp_path: Path) -> None:
    """Of a later version, say."""
    (tmp_path / "last.ckpt").write_bytes(f"segcli checkpoint 9 sha256 {'0' * 64}\n".encode())
    with pytest.raises(ModelError, match="schema 9, this version reads 2"):
        load_last(tmp_path)


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    """A file that is whole by its hash, but would create a folder when unpickled."""

    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "pwned"),)

    payload = pickle.dumps({"record": Evil()}, protocol=2)
    head = f"segcli checkpoint 2 sha256 {hashlib.sha256(payload).hexdigest()}\n".encode()
    (tmp_path / "last.ckpt").write_bytes(head + payload)
    with pytest.raises(ModelError, match="damaged checkpoint"):
        load_last(tmp_path)
    assert not (tmp_path / "pwned").exists()


def test_a_full_disk_leaves_the_checkpoints_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line: what, why, and what to do."""
    _save(tmp_path, 1, 2)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"No space left on device.*--resume"):
        _save(tmp_path, 3)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
