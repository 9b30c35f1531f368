"""What the user reads: messages and progress on stderr, results on stdout."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

_CONTROL = {c: f"\\x{c:02x}" for c in (*range(32), *range(127, 160))}


@dataclass
class Verbosity:
    """How much is said: 0 only warnings and errors, 1 normal, 2 details."""

    level: int = 1


VERBOSITY = Verbosity()


def escape(text: object) -> str:
    """A name from outside, safe to print on a terminal: control characters are shown, not obeyed."""
    return str(text).translate(_CONTROL)


def say(message: str) -> None:
    """One line of information on stderr."""
    if VERBOSITY.level >= 1:
        print(escape(message), file=sys.stderr, flush=True)


def detail(message: str) -> None:
    """One line on stderr, only with -v."""
    if VERBOSITY.level >= 2:
        print(escape(message), file=sys.stderr, flush=True)


def warn(message: str) -> None:
    """One line on stderr that -q does not silence."""
    print(f"warning: {escape(message)}", file=sys.stderr, flush=True)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on stdout; the first column is text, the others are aligned to the right."""
    from rich.console import Console  # 50 ms, only where a table is drawn
    from rich.table import Table
    from rich.text import Text

    grid = Table(title=title or None, title_justify="left")
    for number, name in enumerate(columns):
        grid.add_column(name, justify="left" if number == 0 else "right", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(escape(cell)) for cell in row))
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120).print(grid)


def progress(total: int, description: str, unit: str = "it") -> Any:
    """A tqdm bar on stderr, shown after two seconds; none where stderr is no terminal or with -q."""
    from tqdm import tqdm

    quiet = VERBOSITY.level < 1 or not sys.stderr.isatty()
    return tqdm(total=total, desc=description, unit=unit, delay=2, disable=quiet, file=sys.stderr)
