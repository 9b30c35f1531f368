"""What the user reads: messages and progress on stderr, results on stdout."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

# control characters; marks that turn the order of text around; the halves by which Python holds undecodable file names
_SHOWN = (
    *range(32),
    *range(127, 160),
    0x200E,
    0x200F,
    *range(0x2028, 0x202F),
    *range(0x2066, 0x206A),
)
_CONTROL = {
    c: f"\\x{c:02x}" if c < 256 else f"\\u{c:04x}" for c in (*_SHOWN, *range(0xD800, 0xE000))
}
_NUMBER = re.compile(r"[-+−]?\d[\d,]*(\.\d*)?(e[-+]?\d+)?( ?%)?|[-–—]?")


@dataclass
class Verbosity:
    """How much is said: −1 nothing (another process says it), 0 only warnings and errors, 1 normal, 2 details."""

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
    if VERBOSITY.level >= 0:
        print(f"warning: {escape(message)}", file=sys.stderr, flush=True)


def table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, stderr: bool = False
) -> None:
    """A table on stdout, or on stderr; columns of nothing but numbers, percents and dashes are aligned to the right."""
    from rich.console import Console  # 50 ms, only where a table is drawn
    from rich.table import Table
    from rich.text import Text

    cells = [[escape(cell) for cell in row] for row in rows]
    grid = Table(title=Text(escape(title)) if title else None, title_justify="left")
    for number, name in enumerate(columns):
        numeric = bool(cells) and all(_NUMBER.fullmatch(row[number]) for row in cells)
        grid.add_column(Text(escape(name)), justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        grid.add_row(*map(Text, row))
    stream = sys.stderr if stderr else sys.stdout
    Console(file=stream, width=None if stream.isatty() else 120).print(grid)


def progress(total: int, description: str, unit: str = "it") -> Any:
    """A tqdm bar on stderr, shown after two seconds; none where stderr is no terminal or with -q."""
    from tqdm import tqdm

    quiet = VERBOSITY.level < 1 or not sys.stderr.isatty()
    return tqdm(total=total, desc=description, unit=unit, delay=2, disable=quiet, file=sys.stderr)
