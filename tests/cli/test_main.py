"""The program itself: exit codes, errors of one line, verbosity, help."""

from __future__ import annotations

import errno
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

import click
import pytest

from segcli import errors
from segcli.cli import main as program
from segcli.cli.main import main
from segcli.console import VERBOSITY, detail, say, warn
from segcli.version import __version__

Run = Callable[[Callable[[], object]], int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a function as the body of a command, and returns the program's exit code."""

    def run_body(body: Callable[[], object], *flags: str) -> int:
        @click.command()
        def probe() -> object:
            return body()

        monkeypatch.setattr(program.LazyGroup, "get_command", lambda *_: probe)
        return main([*flags, "probe"])

    return run_body


def raiser(error: BaseException) -> Callable[[], NoReturn]:
    """A body that fails with `error`."""

    def body() -> NoReturn:
        raise error

    return body


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        pytest.param(None, 0, id="nothing"),
        pytest.param(0, 0, id="0"),
        pytest.param(3, 3, id="3, some inputs failed"),
        pytest.param("text", 0, id="something else"),
    ],
)
def test_a_commands_answer_is_the_exit_code(answer: object, code: int, run: Run) -> None:
    """What a command returns is the exit code, if it is a number."""
    assert run(lambda: answer) == code


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        pytest.param(errors.SegcliError("a: b"), 1, "a: b", id="segcli"),
        pytest.param(errors.UsageError("a: b"), 2, "a: b", id="usage"),
        pytest.param(errors.DataError("a: b"), 1, "a: b", id="data"),
        pytest.param(errors.ImageError("a: b"), 1, "a: b", id="image"),
        pytest.param(errors.ModelError("a: b"), 1, "a: b", id="model"),
        pytest.param(errors.OutputError("a: b"), 1, "a: b", id="output"),
        pytest.param(errors.TrainingError("a: b"), 1, "a: b", id="training"),
        pytest.param(errors.PredictionError("a: b"), 1, "a: b", id="prediction"),
        pytest.param(errors.SegcliError("a\nb\n\n c"), 1, "a b c", id="of several lines"),
        pytest.param(errors.SegcliError("a\x1b[2J"), 1, "a\\x1b[2J", id="with control characters"),
        pytest.param(click.UsageError("x"), 2, "x (see `segcli probe --help`)", id="click's usage"),
        pytest.param(click.ClickException("x"), 1, "x", id="click's other"),
        pytest.param(click.Abort(), 130, "interrupted", id="click's abort"),
        pytest.param(KeyboardInterrupt(), 130, "interrupted", id="Ctrl-C"),
        pytest.param(errors.Terminated(), 143, "terminated", id="SIGTERM"),
        pytest.param(ValueError("x"), 1, "unexpected ValueError: x (run again with --debug", id="bug"),
        pytest.param(EOFError("x"), 1, "unexpected EOFError", id="end of file is no Ctrl-C"),
        pytest.param(BrokenPipeError("x"), 1, "unexpected BrokenPipeError", id="a worker's pipe"),
        pytest.param(OSError(errno.ENOSPC, "x", "f"), 1, "f: no space left; make room", id="disk full"),
        pytest.param(OSError(errno.ENOSPC, "x"), 1, "the disk: no space left", id="disk full, unnamed"),
        pytest.param(OSError(getattr(errno, "EDQUOT", errno.ENOSPC), "x", "f"), 1, "f: no space left", id="quota"),
        pytest.param(PermissionError(13, "no", "f"), 1, "unexpected PermissionError", id="other OSError"),
    ],
)  # fmt: skip
def test_every_error_is_one_line(
    error: BaseException, code: int, message: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each error has its exit code and exactly one line on stderr, without a traceback."""
    assert run(raiser(error)) == code

    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"segcli: {message}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code"), [(errors.UsageError("a: b"), 2), (ValueError("a: b"), 1)], ids=["usage", "bug"]
)  # fmt: skip
def test_debug_shows_the_traceback(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --debug the traceback comes first; line and exit code are the same."""
    probe = click.Command("probe", callback=raiser(error))
    monkeypatch.setattr(program.LazyGroup, "get_command", lambda *_: probe)

    assert main(["--debug", "probe"]) == code
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback")
    assert any("raise error" in line for line in lines)
    assert lines[-1].startswith("segcli: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["trian"], "trian", id="no such command"),
        pytest.param(["--colour"], "--colour", id="no such flag"),
        pytest.param(["predict", "nothing"], "nothing", id="no such subcommand"),
        pytest.param(["models", "show"], "MODEL|ARCH", id="missing argument"),
        pytest.param(["doctor", "--json=3"], "--json", id="value for a flag"),
        pytest.param(["doctor", "extra"], "extra", id="one too many"),
        pytest.param(["doctor\nx\x1b"], "doctor\\nx\\x1b", id="control characters"),
        pytest.param([""], "command", id="empty"),
    ],
)
def test_wrong_usage(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, one line that names what was wrong and where help is."""
    assert main(arguments) == 2

    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert message in err
    assert "--help`)" in err or "does not take a value" in err  # there click names no command


@pytest.mark.parametrize("arguments", [[], ["models"], ["predict"]], ids=["none", "models", "predict"])  # fmt: skip
def test_nothing_asked(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A group without a command shows its help, as a page and not as one line, and exits with 2."""
    assert main(arguments) == 2

    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Usage: segcli")
    assert "\nCommands:\n" in err


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Help goes to stdout, with every command and the exit codes."""
    assert main([flag]) == 0

    out, err = capsys.readouterr()
    assert err == ""
    assert all(f"\n  {name} " in out for name in program.COMMANDS)
    assert "130/143 interrupted" in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` names program and version."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"segcli, version {__version__}\n"


def test_arguments_of_the_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without arguments given, those of the process are taken, and `run` exits with the code."""
    monkeypatch.setattr(sys, "argv", ["segcli", "--version"])
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as caught:
            program.run()
        with pytest.raises(errors.Terminated):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)

    assert caught.value.code == 0
    assert __version__ in capsys.readouterr().out


def speak() -> None:
    """Say something on each level."""
    say("normal")
    detail("detailed")
    warn("careful")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        pytest.param([], ["normal", "warning: careful"], id="none"),
        pytest.param(["-v"], ["normal", "detailed", "warning: careful"], id="-v"),
        pytest.param(["--verbose"], ["normal", "detailed", "warning: careful"], id="--verbose"),
        pytest.param(["-q"], ["warning: careful"], id="-q"),
    ],
)
@pytest.mark.parametrize("before", [True, False], ids=["before the command", "after it"])
def test_verbosity(
    flags: list[str],
    expected: list[str],
    before: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """-v and -q work before and after the command's name, and are forgotten at the next start."""
    probe = program.common_options(click.Command("probe", callback=speak))
    monkeypatch.setattr(program.LazyGroup, "get_command", lambda *_: probe)

    assert main([*flags, "probe"] if before else ["probe", *flags]) == 0
    assert capsys.readouterr().err.splitlines() == expected
    assert main(["probe"]) == 0
    assert VERBOSITY.level == 1
