"""What the user reads: escaped, on the right stream, tables aligned by what is in them."""

from __future__ import annotations

import io
import sys

import pytest

from segcli import console
from segcli.console import detail, escape, progress, say, table, warn


@pytest.fixture(autouse=True)
def _normal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console.VERBOSITY, "level", 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", "", id="empty"),
        pytest.param("a b/ü-写.jpg", "a b/ü-写.jpg", id="ordinary"),
        pytest.param(7, "7", id="no text"),
        pytest.param("\x1b[31mred", "\\x1b[31mred", id="escape sequence"),
        pytest.param("a\nb\r\tc\0", "a\\x0ab\\x0d\\x09c\\x00", id="line breaks, tab, null"),
        pytest.param("\x7f\x9b1m", "\\x7f\\x9b1m", id="delete and C1"),
        pytest.param("a\u202egpj.exe", "a\\u202egpj.exe", id="right to left"),
        pytest.param("\u2066x\u2069\u200f\u2028", "\\u2066x\\u2069\\u200f\\u2028", id="isolates"),
        pytest.param("caf\udce9.jpg", "caf\\udce9.jpg", id="name that is not UTF-8"),
    ],
)
def test_escape(text: object, expected: str) -> None:
    """What a terminal would obey is shown; the rest is left alone."""
    assert escape(text) == expected
    assert escape(escape(text)) == expected


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        pytest.param(0, "warning: w\n", id="quiet"),
        pytest.param(1, "s\nwarning: w\n", id="normal"),
        pytest.param(2, "s\nd\nwarning: w\n", id="verbose"),
        pytest.param(3, "s\nd\nwarning: w\n", id="very verbose"),
    ],
)
def test_levels(
    level: int,
    expected: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """-q silences all but warnings, -v adds details; nothing goes to stdout."""
    monkeypatch.setattr(console.VERBOSITY, "level", level)
    say("s")
    detail("d")
    warn("w")

    assert capsys.readouterr() == ("", expected)


@pytest.mark.parametrize("speak", [say, warn])
def test_one_line_whatever_the_name(speak: object, capsys: pytest.CaptureFixture[str]) -> None:
    """A name with a line break stays on its line."""
    assert callable(speak)
    speak("a\nb\x1b[2J")

    assert capsys.readouterr().err.endswith("a\\x0ab\\x1b[2J\n")
    assert capsys.readouterr().err.count("\n") <= 1


def body(text: str) -> list[list[str]]:
    """Cells of a printed table's rows, with their spaces."""
    return [line.strip("│").split("│") for line in text.splitlines() if line.startswith("│")]


@pytest.mark.parametrize(
    ("cells", "right"),
    [
        pytest.param(["1", "22.5", "-3"], True, id="numbers"),
        pytest.param(["1,234", "5", "-"], True, id="thousands and a dash"),
        pytest.param(["12 %", "3.5%", "—"], True, id="percent"),
        pytest.param(["1e-05", "+2", "−3"], True, id="exponents and signs"),
        pytest.param(["1", "", "30"], True, id="an empty cell"),
        pytest.param(["1", "two", "3"], False, id="a word among numbers"),
        pytest.param(["1 2", "3", "4"], False, id="two numbers in a cell"),
        pytest.param(["8.5.1", "2", "3"], False, id="a version"),
        pytest.param(["cat", "dog", "x"], False, id="words"),
    ],
)
def test_table_alignment(cells: list[str], right: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """Only a column of nothing but numbers, percents and dashes is aligned to the right."""
    table("", ["a long heading", "n"], [(cell, "x") for cell in cells])

    for found, cell in zip(body(capsys.readouterr().out), cells, strict=True):
        assert found[0] == (f" {cell:>14} " if right else f" {cell:<14} ")


@pytest.mark.parametrize("columns", [[], ["a"], ["a", "b"]], ids=["none", "one", "two"])
def test_table_without_rows(columns: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """No rows is a table with its heading, and no error."""
    table("Title", columns, [])

    shown = capsys.readouterr().out
    assert all(name in shown for name in columns)


def test_table_takes_names_literally(capsys: pytest.CaptureFixture[str]) -> None:
    """Title, heading and cells are shown as they are: no markup, no control characters."""
    table("[red]t[/red]\x1b", ["[b]h"], [("[link=x]\x1b[0mcell",), ("caf\udce9",)])
    captured = capsys.readouterr()

    assert captured.err == ""
    for text in ("[red]t[/red]\\x1b", "[b]h", "[link=x]\\x1b[0mcell", "caf\\udce9"):
        assert text in captured.out
    assert "\x1b" not in captured.out


class Terminal(io.StringIO):
    """A stderr that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "level", "disabled"),
    [
        pytest.param(Terminal(), 1, False, id="terminal"),
        pytest.param(Terminal(), 0, True, id="quiet"),
        pytest.param(io.StringIO(), 1, True, id="no terminal"),
    ],
)
def test_progress(
    stream: io.StringIO, level: int, disabled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bar is drawn on a terminal only, and not with -q; work that is over at once draws none."""
    monkeypatch.setattr(console.VERBOSITY, "level", level)
    monkeypatch.setattr(sys, "stderr", stream)
    with progress(3, "work", "x") as bar:
        assert bar.disable is disabled
        bar.update(3)

    assert "work" not in stream.getvalue()
