"""Jobs that are killed at chosen moments and run again end as if never killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("fake_job.py")


@pytest.fixture
def many(photos: Path, make_picture: Callable[[Path, int], Path]) -> Path:
    """Thirty pictures, one of them broken."""
    for i in range(19):
        make_picture(photos / "many" / f"{i}.png", 100 + i)
    return photos


def command(photos: Path, out: Path, *flags: str) -> list[str]:
    program = [sys.executable, str(PROGRAM), "predict", "folder", str(photos), "--model", "m"]
    return [*program, "--batch-size", "2", "--output", str(out), *flags]


def run(photos: Path, out: Path, *flags: str, **variables: str) -> int:
    """Run to its end, by itself or by a kill; the exit code."""
    environment = {**os.environ, "FAKE_SHARD": "4", **variables}
    finished = subprocess.run(
        command(photos, out, *flags), env=environment, capture_output=True, check=False
    )
    return finished.returncode


def results(out: Path) -> dict[str, bytes]:
    """All files that do not depend on how often the job was started."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and path.parent.name != "shards" and not path.name.startswith(".")
    }


@pytest.fixture
def undisturbed(many: Path, tmp_path: Path) -> dict[str, bytes]:
    """What a run without a kill leaves."""
    assert run(many, tmp_path / "whole", "--overlays", "--csv") == 3
    return results(tmp_path / "whole")


def test_killed_at_every_third_file(
    many: Path, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    """One job, killed just before or after a file of every kind appears, and run again each time."""
    out = tmp_path / "out"
    kills = [
        "before:1",
        "after:1",
        "after:1",
        "before:3",
        "after:2",
        "before:2",
        "after:4",
        "before:9",
    ]
    for point in kills:
        assert run(many, out, "--overlays", "--csv", FAKE_KILL=point) == -signal.SIGKILL
    assert run(many, out, "--overlays", "--csv") == 3
    found = results(out)
    assert found.keys() == undisturbed.keys()
    assert found == undisturbed
    assert not list(out.rglob("*.tmp"))


def test_killed_at_random_moments(
    many: Path, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    """Killed from outside at five random moments of its work, the bytes are the same."""
    out = tmp_path / "out"
    rng = random.Random(7)
    environment = {**os.environ, "FAKE_SHARD": "4", "FAKE_DELAY": "0.05"}
    kills = 0
    for _ in range(5):
        with subprocess.Popen(
            command(many, out, "--overlays", "--csv"), env=environment, stderr=subprocess.DEVNULL
        ) as process:
            while not (out / "plan.jsonl").exists():
                time.sleep(0.005)
            time.sleep(rng.uniform(0.05, 0.6))
            process.kill()
        kills += process.returncode == -signal.SIGKILL
    assert kills >= 3
    assert run(many, out, "--overlays", "--csv") == 3
    assert results(out) == undisturbed


@pytest.mark.parametrize(
    ("number", "code"),
    [pytest.param(signal.SIGTERM, 143, id="term"), pytest.param(signal.SIGINT, 130, id="ctrl-c")],
)
def test_a_signal_commits_finished_batches(
    many: Path, tmp_path: Path, undisturbed: dict[str, bytes], number: int, code: int
) -> None:
    """On SIGTERM and Ctrl-C what is finished is committed at once, and one line says how to go on."""
    out = tmp_path / "out"
    environment = {
        **os.environ,
        "FAKE_DELAY": "0.05",
    }  # one shard for all: nothing is due by itself
    with subprocess.Popen(
        command(many, out, "--overlays", "--csv"),
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not (out / "plan.jsonl").exists():
            time.sleep(0.005)
        time.sleep(0.5)
        assert not list(out.glob("shards/*.jsonl"))
        process.send_signal(number)
        _, messages = process.communicate()
    assert process.returncode == code
    assert messages.splitlines()[-1].endswith(
        "run the same command again to go on where it stopped"
    )
    head = json.loads((out / "shards" / "00000.jsonl").read_bytes().split(b"\n")[0])
    assert len(head["pictures"]) >= 4
    assert run(many, out, "--overlays", "--csv") == 3
    assert results(out) == undisturbed


def test_two_at_once(many: Path, tmp_path: Path) -> None:
    """A second process on the same OUT is refused with one line, and the first one is not disturbed."""
    out, gate = tmp_path / "out", tmp_path / "gate"
    environment = {**os.environ, "FAKE_GATE": str(gate)}
    with subprocess.Popen(
        command(many, out), env=environment, stderr=subprocess.DEVNULL
    ) as process:
        while not (out / "plan.jsonl").exists():
            assert process.poll() is None
            time.sleep(0.005)
        second = subprocess.run(command(many, out), capture_output=True, text=True, check=False)
        gate.touch()  # the first one was in its first batch all the time
        assert process.wait() == 3
    assert second.returncode == 1
    assert second.stderr.startswith(f"segcli: {out}: in use by another segcli process")
    assert len(second.stderr.splitlines()) == 1
