"""Times as users write them: seconds, MM:SS or HH:MM:SS, exact as fractions."""

from __future__ import annotations

import re
from fractions import Fraction

from segcli.errors import UsageError

_TIME = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?|\.\d+)", re.ASCII)


def parse_time(text: str) -> Fraction:
    """Seconds from `12.5`, `1:30` or `0:01:30.25`.

    Raises:
        UsageError: the text is no time.
    """
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"time {text!r}: expected seconds or HH:MM:SS, such as 12.5 or 0:01:30")
    hours, minutes, seconds = match.groups()
    minutes_too_many = hours is not None and int(minutes) > 59
    if minutes_too_many or (minutes is not None and Fraction(seconds) >= 60):
        raise UsageError(f"time {text!r}: minutes and seconds behind a colon go from 0 to 59")
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + Fraction(seconds)


def format_time(seconds: Fraction) -> str:
    """`H:MM:SS.mmm` for messages."""
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest // 1000:02d}.{rest % 1000:03d}"
