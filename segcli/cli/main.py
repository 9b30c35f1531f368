"""The `segcli` program: commands are imported when they are asked for, errors become one line and an exit code."""

from __future__ import annotations

import importlib
import os
import select
import signal
import sys
import traceback
from types import FrameType
from typing import NoReturn

import click

from segcli.allocator import keep_large_blocks
from segcli.cli.options import common_options
from segcli.console import VERBOSITY, escape
from segcli.errors import SegcliError, Terminated
from segcli.processes import end_workers
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
    "bench": ("segcli.cli.bench", "bench", "Time this machine, against the peers."),
    "doctor": (
        "segcli.cli.doctor",
        "doctor",
        "Show versions and devices, and check that all works.",
    ),
}


class LazyGroup(click.Group):
    """A group whose commands are imported only when one of them is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the help page."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help page's list without importing the commands."""
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
    VERBOSITY.level = 1
    try:
        code = _run(given)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt, Terminated) as error:
        if isinstance(error, BrokenPipeError) and _reader_gone():
            # `segcli … | head`: nothing to say, and nobody to say it to
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        if "--debug" in given and isinstance(error, Exception):
            traceback.print_exception(error)
        return _report(error, next((a for a in given if not a.startswith("-")), ""))
    return code


def _run(arguments: list[str]) -> int:
    """Run the command; its exit code.

    Not by `cli.main`, which takes an EOFError for Ctrl-C and leaves the process itself when a pipe breaks.
    """
    if instruction := os.environ.get("_SEGCLI_COMPLETE"):
        from click.shell_completion import shell_complete

        return shell_complete(cli, {}, "segcli", "_SEGCLI_COMPLETE", instruction)
    try:
        with cli.make_context("segcli", list(arguments)) as ctx:
            result = cli.invoke(ctx)
    except click.exceptions.Exit as stop:  # --help and --version
        return stop.exit_code
    return result if isinstance(result, int) else 0


def _reader_gone() -> bool:
    """Whether nobody reads stdout; a broken pipe elsewhere (a worker's) is an error like any other."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
    except (AttributeError, OSError):  # Windows; a stdout that is no file
        return False
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _report(error: BaseException, command: str) -> int:
    """Say in one line what went wrong; the exit code it stands for."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):  # its message is the whole help page
        print(error.format_message(), file=sys.stderr, flush=True)
        return error.exit_code
    if isinstance(error, KeyboardInterrupt) and sys.stderr.isatty():
        print(file=sys.stderr)  # after the terminal's own ^C
    message, code = _explain(error)
    if code in _STOPPED and command in _GO_ON:
        message += f"; {_GO_ON[command]}"
    first_line = " ".join(escape(message.replace("\n", " ")).split())
    print(f"segcli: {first_line}", file=sys.stderr, flush=True)
    return code


_STOPPED = (130, 143)
# what to do after Ctrl-C or SIGTERM, for the commands that can go on
_GO_ON = {
    "predict": "run the same command again to go on where it stopped",
    "train": "run it again with --resume to go on where it stopped",
}


def _explain(error: BaseException) -> tuple[str, int]:
    if isinstance(error, click.UsageError):
        hint = f" (see `{error.ctx.command_path} --help`)" if error.ctx else ""
        return error.format_message() + hint, 2
    if isinstance(error, click.ClickException):
        return error.format_message(), 1
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return "interrupted", 130
    if isinstance(error, Terminated):
        return "terminated", 143
    if isinstance(error, SegcliError):
        return str(error), error.exit_code
    if isinstance(error, OSError) and _is_full(error):
        return f"{error.filename or 'the disk'}: no space left; make room and run again", 1
    name = type(error).__name__
    return f"unexpected {name}: {error} (run again with --debug for the traceback)", 1


def _is_full(error: OSError) -> bool:
    from segcli.files import NO_ROOM  # not for --help

    return error.errno in NO_ROOM


def _on_sigterm(_signal: int, _frame: FrameType | None) -> None:
    raise Terminated


def run() -> NoReturn:
    """Entry point of the installed program."""
    signal.signal(signal.SIGTERM, _on_sigterm)
    keep_large_blocks()
    code = main()
    end_workers()
    sys.exit(code)
