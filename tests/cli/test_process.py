"""The program in a process of its own: signals, broken pipes, and what it imports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from segcli.cli import main as program
from segcli.version import __version__

HELP_MODULES = {
    "segcli.allocator",
    "segcli",
    "segcli.__main__",
    "segcli.cli",
    "segcli.cli.main",
    "segcli.cli.options",
    "segcli.config",
    "segcli.console",
    "segcli.errors",
    "segcli.processes",
    "segcli.version",
}


HEAVY = {"torch", "torchvision", "numpy", "cv2", "PIL", "pycocotools", "av", "rich", "tqdm"}


def segcli(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own."""
    command = [sys.executable, "-m", "segcli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def test_module_runs() -> None:
    """`python -m segcli` is the program."""
    found = segcli("--version")

    assert (found.returncode, found.stdout) == (0, f"segcli, version {__version__}\n")


def test_help_is_light() -> None:
    """`segcli --help` imports no command, no torch, no numpy: it has to be there at once."""
    command = [sys.executable, "-X", "importtime", "-m", "segcli", "--help"]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = {line.rsplit("|", 1)[-1].strip() for line in found.stderr.splitlines()}

    assert {name for name in imported if name.split(".")[0] == "segcli"} <= HELP_MODULES
    assert not {name.split(".")[0] for name in imported} & HEAVY
    assert "click" in imported  # the measurement itself works


def test_help_of_every_command_is_light() -> None:
    """No command's help imports the network's libraries."""
    code = (
        "import sys, json\n"
        "from segcli.cli.main import COMMANDS, main\n"
        "codes = [main([name, '--help']) for name in COMMANDS]\n"
        "names = sorted({m.split('.')[0] for m in sys.modules})\n"
        "print('\\n' + json.dumps([codes, names]))\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    codes, names = json.loads(found.stdout.splitlines()[-1])

    assert codes == [0] * len(program.COMMANDS)
    assert not {"torch", "torchvision", "cv2"} & set(names)


SLEEPER = """
import signal, sys, time
import click
from segcli.cli import main as program

def body():
    print("ready", flush=True)
    time.sleep(60)

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell starts us with it ignored
program.LazyGroup.get_command = lambda *_: click.Command("probe", callback=body)
program.run()
"""


@pytest.mark.parametrize(
    ("number", "code", "message"),
    [
        (signal.SIGINT, 130, "segcli: interrupted"),
        (signal.SIGTERM, 143, "segcli: terminated"),
    ],
    ids=["SIGINT", "SIGTERM"],
)
def test_signals(number: signal.Signals, code: int, message: str) -> None:
    """A real process that is interrupted says so in one line and exits with the shell's code."""
    command = [sys.executable, "-c", SLEEPER, "probe"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=30)

    assert process.returncode == code
    assert err.startswith(message)
    assert err.count("\n") == 1


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
def test_nobody_reads(unbuffered: str) -> None:
    """`segcli … | head`: when the reader goes, nothing is said and the exit code is 0."""
    reading, writing = os.pipe()
    os.close(reading)
    with subprocess.Popen(
        [sys.executable, "-m", "segcli", "--help"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    ) as process:
        os.close(writing)
        _, err = process.communicate(timeout=60)

    assert (process.returncode, err) == (0, "")


def test_shell_completion(tmp_path: Path) -> None:
    """The shell's completion is asked for by click's variable."""
    environment = {**os.environ, "_SEGCLI_COMPLETE": "bash_complete"}
    environment |= {"COMP_WORDS": "segcli doc", "COMP_CWORD": "1"}

    assert segcli(env=environment, cwd=tmp_path).stdout == "plain,doctor\n"
