"""Several processes that train together."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from segcli.training.results import share_of
from segcli.training.world import ALONE, World, device_of_process, was_restarted

Squares = Callable[..., Path]


def test_a_world_of_one_talks_to_nobody() -> None:
    """Everything comes back as it was."""
    values = torch.tensor([1.0, 2.0])
    assert ALONE.is_main
    assert ALONE.sum(values).tolist() == [1.0, 2.0]
    assert ALONE.share("x") == "x"
    assert ALONE.collect("x") == ["x"]
    assert ALONE.gather("x") == ["x"]
    assert (ALONE.any(True), ALONE.any(False)) == (True, False)


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("pictures", [0, 1, 9])
def test_evaluation_is_shared_without_padding(
    pictures: int, batch_size: int, world_size: int, squares: Squares
) -> None:
    """Every readable picture once, in the very batches that one process would make."""
    from segcli.data.coco import read_coco

    dataset = read_coco(squares("train", max(pictures, 1))).pictures[:pictures]
    shares = [share_of(dataset, batch_size, World(rank, world_size)) for rank in range(world_size)]
    whole = [dataset[i : i + batch_size] for i in range(0, pictures, batch_size)]
    batches = [s[i : i + batch_size] for s in shares for i in range(0, len(s), batch_size)]
    key = [sorted(p.file_name for p in batch) for batch in whole]
    assert sorted(sorted(p.file_name for p in batch) for batch in batches) == sorted(key)


def test_each_process_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless it was told which, or is alone, or there is none."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert [device_of_process(d) for d in ("auto", "cuda", "cuda:1", "cpu")] == [
        "cuda:3", "cuda:3", "cuda:1", "cpu",
    ]  # fmt: skip
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert device_of_process("auto") == "auto"
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert device_of_process("cuda") == "cuda"


def test_a_restart_by_torchrun_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first start is none."""
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
    assert not was_restarted()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert not was_restarted()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    assert was_restarted()


def _start(rank: int, size: int, port: int, command: list[str]) -> subprocess.Popen[str]:
    place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    master = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *command],
        env={**os.environ, **place, **master}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def _train(size: int, arguments: list[str]) -> list[tuple[int, str, str]]:
    """Exit code, stdout and stderr of every process."""
    return _run(size, ["-m", "segcli", "train", *arguments])


def _run(size: int, command: list[str]) -> list[tuple[int, str, str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [_start(rank, size, port, command) for rank in range(size)]
    outcomes = [process.communicate(timeout=300) for process in processes]
    return [(p.returncode, *texts) for p, texts in zip(processes, outcomes, strict=True)]


@pytest.mark.slow
def test_two_processes_train_as_one(squares: Squares, tmp_path: Path) -> None:
    """2 × 2 pictures and 1 × 4: the same weights within 1e-5 after 10 steps, and the same evaluation."""
    data, val = squares("train", 8), squares("val", 3)
    common = [
        str(data), "--val", str(val), "--steps", "10", "--model", "mask-rcnn-nano", "--min-size", "64",
        "--max-size", "96", "--workers", "0", "--device", "cpu", "--precision", "fp32", "--optimizer", "sgd",
        "--lr", "0.001", "--eval-every", "9",
    ]  # fmt: skip
    one, two = tmp_path / "one", tmp_path / "two"
    ((code, _, _),) = _train(1, [*common, "--batch-size", "4", "--output", str(one)])
    assert code == 0
    (first, second) = _train(2, [*common, "--batch-size", "2", "--output", str(two)])
    assert (first[0], second[0]) == (0, 0)
    assert "10 steps of 4 (2 processes × 2)" in first[2]
    assert second[1:] == ("", "")  # only the first process talks
    weights = [load_file(folder / "best.safetensors") for folder in (one, two)]
    assert max((weights[0][k] - weights[1][k]).abs().max().item() for k in weights[0]) < 1e-5


_ASK = """
from segcli.training.world import joined_world
with joined_world("cpu") as world:
    print(world.any(world.rank == 1), world.any(True), world.any(False))
"""


@pytest.mark.slow
def test_what_one_process_says_all_know() -> None:
    """And nobody says what nobody said."""
    outcomes = _run(2, ["-c", _ASK])
    assert [(code, out) for code, out, _ in outcomes] == [(0, "True True False\n")] * 2


@pytest.mark.slow
def test_a_usage_error_ends_all_processes(squares: Squares, tmp_path: Path) -> None:
    """Said once, with its exit code everywhere; nobody waits."""
    arguments = [
        str(squares("train", 1)), "--model", "no-such-model", "--device", "cpu", "--output", str(tmp_path / "run"),
    ]  # fmt: skip
    first, second = _train(2, arguments)
    assert (first[0], second[0]) == (2, 2)
    assert "no-such-model" in first[2]
    assert second[2] == ""
