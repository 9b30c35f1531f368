"""Every command is documented, with an example that it would accept."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import click
import pytest

from segcli.cli.main import COMMANDS, cli, main


def walk(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Names of all commands below a group."""
    context = click.Context(group)
    for name in group.list_commands(context):
        yield (*path, name)
        child = group.get_command(context, name)
        if isinstance(child, click.Group):
            yield from walk(child, (*path, name))


def resolve(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that `words` begin with, and what follows."""
    found: click.Command = cli
    rest = list(words)
    while isinstance(found, click.Group) and rest and not rest[0].startswith("-"):
        child = found.get_command(click.Context(found), rest[0])
        assert child is not None, f"no command {rest[0]!r}"
        found, rest = child, rest[1:]
    return found, rest


PATHS = [pytest.param(path, id=" ".join(path) or "segcli") for path in [(), *walk(cli)]]


def test_all_commands_are_listed() -> None:
    """The table of the program is what the tree holds."""
    assert {path[0] for path in walk(cli)} == set(COMMANDS)
    assert len(list(walk(cli))) > len(COMMANDS)


@pytest.mark.parametrize("path", PATHS)
def test_help_page(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """--help and -h show a page on stdout: what it does, an example, help for every option."""
    assert main([*path, "--help"]) == 0
    page = capsys.readouterr().out
    assert main([*path, "-h"]) == 0
    assert capsys.readouterr().out == page

    assert page.startswith(" ".join(["Usage: segcli", *path]))
    assert "\n  Example:\n" in page
    assert max(len(line) for line in page.splitlines()) <= 130


@pytest.mark.parametrize("path", PATHS)
def test_everything_is_explained(path: tuple[str, ...]) -> None:
    """The first line is a sentence, and each option says what it is for."""
    command, rest = resolve(list(path))
    assert not rest
    first = (command.help or "").strip().splitlines()[0]

    assert first.endswith((".", ":")) or command is cli
    unexplained = [p.name for p in command.params if isinstance(p, click.Option) and not p.help]
    assert unexplained == []


@pytest.mark.parametrize("path", PATHS)
def test_examples_are_accepted(path: tuple[str, ...]) -> None:
    """Each example begins with the command's own name, and its flags exist."""
    command, _ = resolve(list(path))
    lines = (command.help or "").partition("Example:\n")[2].partition("\n\n")[0].splitlines()
    examples = [shlex.split(line) for line in lines if line.strip().startswith("segcli")]
    assert examples

    for words in examples:
        assert words[1 : 1 + len(path)] == list(path)
        found, rest = resolve(words[1:])
        known = {flag for p in found.params for flag in (*p.opts, *p.secondary_opts)}
        assert not isinstance(found, click.Group)
        assert {word for word in rest if word.startswith("-")} <= known


@pytest.mark.parametrize("path", PATHS)
def test_verbosity_and_debug_everywhere(path: tuple[str, ...]) -> None:
    """-v, -q and --debug work at every place of the command line."""
    command, _ = resolve(list(path))
    known = {flag for p in command.params for flag in p.opts}

    assert {"-v", "-q", "--debug"} <= known
