"""The `segcli` program: commands are imported when they are asked for, errors become one line and an exit code."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import click

from segcli.cli.options import common_options
from segcli.console import escape
from segcli.errors import SegcliError, Terminated
from segcli.version import __version__

# name -> (module, attribute, one line of help): `segcli --help` imports none of the modules
COMMANDS = {
    "train": ("segcli.cli.train", "train", "Train or fine-tune a model on a COCO dataset."),
    "eval": (
        "segcli.cli.evaluate",
        "evaluate",
        "Measure box and mask AP of a model or of predictions.",
    ),
    "predict": (
        "segcli.cli.predict",
        "predict",
        "Find objects on a folder of pictures or on single files.",
    ),
    "overlay": ("segcli.cli.overlay", "overlay", "Draw masks on pictures and video."),
    "data": ("segcli.cli.data", "data", "Check datasets, and make synthetic ones."),
    "models": ("segcli.cli.models", "models", "List, show and make models."),
    "doctor": (
        "segcli.cli.doctor",
        "doctor",
        "Show versions and devices, and check that all works.",
    ),
}


class LazyGroup(click.Group):
    """A group whose commands are imported only when one of them is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="segcli")
@common_options
def cli() -> None:
    """Instance segmentation: pictures in, masks out.

    \b
    Example:
      segcli predict folder photos --model torchvision/mask-rcnn-r50-fpn-coco --output out --overlays

    Every command has --help with an example. Results go to stdout, progress and messages to stderr.
    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 finished but some inputs failed, 130/143 interrupted.
    """


def main(arguments: list[str] | None = None) -> int:
    """Run the program and return its exit code; errors are one line on stderr.

    Args:
        arguments: what follows `segcli`; None = the process's own.
    """
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given
    try:
        code = cli.main(args=given, prog_name="segcli", standalone_mode=False)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt, Terminated) as error:
        if debug and not isinstance(error, KeyboardInterrupt | Terminated):
            raise
        return _report(error)
    return code if isinstance(code, int) else 0


def _report(error: BaseException) -> int:
    """Say in one line what went wrong; the exit code it stands for."""
    message, code = _explain(error)
    if code == _PIPE_CLOSED:
        # the reader of our output has gone (`segcli … | head`): nothing to say, and nobody to say it to
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    first_line = " ".join(escape(message.replace("\n", " ")).split())
    print(f"segcli: {first_line}", file=sys.stderr, flush=True)
    return code


_PIPE_CLOSED = -1


def _explain(error: BaseException) -> tuple[str, int]:
    if isinstance(error, click.UsageError):
        hint = f" (see `{error.ctx.command_path} --help`)" if error.ctx else ""
        return error.format_message() + hint, 2
    if isinstance(error, click.ClickException):
        return error.format_message(), 1
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return "interrupted; run the same command again to go on where it stopped", 130
    if isinstance(error, Terminated):
        return "terminated; run the same command again to go on where it stopped", 143
    if isinstance(error, SegcliError):
        return str(error), error.exit_code
    if isinstance(error, BrokenPipeError):
        return "", _PIPE_CLOSED
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return (
            f"{error.filename or 'the disk'}: no space left; make room and run the same command again",
            1,
        )
    name = type(error).__name__
    return f"unexpected {name}: {error} (run again with --debug for the traceback)", 1


def _on_sigterm(_signal: int, _frame: FrameType | None) -> None:
    raise Terminated


def run() -> NoReturn:
    """Entry point of the installed program."""
    signal.signal(signal.SIGTERM, _on_sigterm)
    sys.exit(main())
