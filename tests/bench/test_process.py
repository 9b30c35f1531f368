"""Contestants as processes: answers, refusals, deaths."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from segcli.bench.answering import peak_bytes
from segcli.bench.child import Contestant
from segcli.bench.predictors import CONTESTANTS, Task
from segcli.bench.process import Process
from segcli.errors import PredictionError, UsageError

# answers by what it is asked to do
FAKE = """
import json, os, signal, sys
for line in sys.stdin:
    message = json.loads(line)
    if message["do"] == "die":
        print("Traceback (most recent call last):", file=sys.stderr)
        print("RuntimeError: out of luck", file=sys.stderr)
        sys.exit(1)
    if message["do"] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if message["do"] == "refuse":
        answer = {"error": "no such thing here", "usage": True}
    elif message["do"] == "fail":
        answer = {"error": "a.jpg: cannot be read", "usage": False}
    elif message["do"] == "chatter":
        print("x" * 1_000_000, file=sys.stderr)
        answer = {"said": 1_000_000}
    else:
        answer = {**message, "threads": os.environ.get("OMP_NUM_THREADS")}
    print(json.dumps(answer), flush=True)
"""


def fake(threads: int | None = None) -> Process:
    """A process that imports nothing."""
    return Process("bf16", threads=threads, command=(sys.executable, "-c", FAKE))


def test_questions_and_answers() -> None:
    """One line in, one line out, in one process; a million characters on stderr block nobody."""
    with fake(threads=3) as process:
        assert process.ask("chatter") == {"said": 1_000_000}
        for number in range(3):
            expected = {"do": "job", "number": number, "name": "å", "threads": "3"}
            assert process.ask("job", number=number, name="å") == expected


@pytest.mark.parametrize(
    ("do", "kind", "message"),
    [
        ("refuse", UsageError, "no such thing here"),
        ("fail", PredictionError, "bf16: a.jpg: cannot be read"),
        (
            "die",
            PredictionError,
            "bf16: its process ended with exit code 1 (RuntimeError: out of luck)",
        ),
        (
            "killed",
            PredictionError,
            "bf16: its process was killed by signal 9 (it said nothing)",
        ),
    ],
)
def test_failures_are_one_line(do: str, kind: type[Exception], message: str) -> None:
    """A refusal, an error and a death each come back as an error of one line."""
    with fake() as process, pytest.raises(kind) as caught:
        process.ask(do)

    assert str(caught.value) == message


def test_a_dead_process_stays_dead() -> None:
    """Asking again says the same, also where the pipe is broken by then."""
    with fake() as process:
        for _ in range(2):
            with pytest.raises(PredictionError, match="RuntimeError: out of luck"):
                process.ask("die")


def test_nothing_outlives_the_block() -> None:
    """The process is gone after the block, and at once where the block fails while it works."""
    with fake() as process:
        process.ask("job")
    assert process._process.returncode == 0

    sleeper = (sys.executable, "-c", "import time; time.sleep(600)")
    with pytest.raises(RuntimeError), Process("bf16", command=sleeper) as process:
        raise RuntimeError
    assert process._process.returncode is not None
    assert process._process.returncode < 0


def test_the_real_child_answers_in_json() -> None:
    """What is printed by others does not get between the answers; the end of the input ends it."""
    code = (
        "import sys; from segcli.bench import child\n"
        "def open(self, message): print('noise'); return {'pictures': 2}\n"
        "child.Contestant.open = open; child.main()"
    )
    given = subprocess.run(
        [sys.executable, "-c", code], input='{"do": "open"}\n' * 2, capture_output=True, text=True,
        check=True,
    )  # fmt: skip

    assert [json.loads(line) for line in given.stdout.splitlines()] == [{"pictures": 2}] * 2
    assert given.stderr == "noise\n" * 2


def test_the_child_is_light_until_it_is_asked() -> None:
    """The allocator is set up before torch is there."""
    code = "import sys, segcli.bench.child; print({'torch', 'numpy'} & set(sys.modules))"
    given = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert given.stdout == "set()\n"


@pytest.mark.parametrize("name", CONTESTANTS)
def test_a_model_that_is_not_there(name: str, tmp_path: Path) -> None:
    """Every contestant refuses it in the same words."""
    task = Task(str(tmp_path), str(tmp_path / "no.safetensors"), 0.05)
    message = {"contestant": name, "task": json.loads(json.dumps(task.to_dict()))}

    with pytest.raises(UsageError, match=r"no\.safetensors: no such file, RUN folder"):
        Contestant().open(message)


def test_peak_memory_is_this_processs_own() -> None:
    """A small process started by a large one has a small peak."""
    code = "from segcli.bench.answering import peak_bytes; print(peak_bytes())"
    mine = peak_bytes()
    given = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert mine is not None
    assert 2**20 < int(given.stdout) < 100 * 2**20 < mine
