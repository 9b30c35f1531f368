"""Shared options: their values, and that every default stands in `segcli.config` alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import click
import pytest

from segcli.cli.main import LazyGroup, cli
from segcli.cli.options import defaults, split_names
from segcli.config import DrawConfig, PredictConfig, TrainConfig


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(None, (), id="none"),
        pytest.param("", (), id="empty text"),
        pytest.param([], (), id="empty list"),
        pytest.param(("",), (), id="list of an empty text"),
        pytest.param("a", ("a",), id="one"),
        pytest.param("a,b", ("a", "b"), id="two"),
        pytest.param(" a , traffic light ,,", ("a", "traffic light"), id="spaces and commas"),
        pytest.param(("a,b", "c"), ("a", "b", "c"), id="given twice"),
        pytest.param(["a", "b"], ("a", "b"), id="from a file"),
        pytest.param([1, 2], ("1", "2"), id="numbers from a file"),
    ],
)
def test_split_names(value: Any, expected: tuple[str, ...]) -> None:
    """Names with commas, repeated flags and lists of a file mean the same."""
    assert split_names(None, None, value) == expected


def test_defaults() -> None:
    """Every field's default, by name."""

    @dataclass
    class Two:
        a: int = 1
        b: str | None = None

    assert defaults(Two) == {"a": 1, "b": None}


def command(*names: str) -> click.Command:
    """A command of the program, by its names."""
    found: click.Command = cli
    for name in names:
        assert isinstance(found, click.Group)
        child = found.get_command(click.Context(found), name)
        assert child is not None
        found = child
    return found


@pytest.mark.parametrize(
    ("names", "arguments", "configs"),
    [
        pytest.param(("train",), ["data"], (TrainConfig,), id="train"),
        pytest.param(("predict", "folder"), ["."], (PredictConfig, DrawConfig), id="predict folder"),
        pytest.param(("predict", "image"), [__file__], (PredictConfig, DrawConfig), id="predict image"),
    ],
)  # fmt: skip
def test_defaults_stand_once(
    names: tuple[str, ...], arguments: list[str], configs: tuple[Any, ...]
) -> None:
    """Without flags a command has the settings' defaults; each setting that makes results has its flag."""
    expected: dict[str, Any] = {}
    for config in configs:
        expected |= defaults(config)
    given = [*arguments, "--model", expected["model"], "--output", "out"]
    # click remembers the help flags of a command's first context: they have to be the program's
    help_flags = cli.context_settings["help_option_names"]
    made = command(*names).make_context(names[-1], given, help_option_names=help_flags)
    with made as context:
        found = context.params

    assert set(defaults(configs[0])) <= found.keys()
    shared = found.keys() & expected.keys()
    assert {name: found[name] for name in shared} == {name: expected[name] for name in shared}


def test_an_unknown_command_is_none() -> None:
    """The group itself answers None, and click says the rest."""
    assert isinstance(cli, LazyGroup)
    assert cli.get_command(click.Context(cli), "nothing") is None
