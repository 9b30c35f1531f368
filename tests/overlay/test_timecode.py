"""Times on the command line."""

from __future__ import annotations

from fractions import Fraction

import pytest

from segcli.errors import UsageError
from segcli.overlay.timecode import format_time, parse_time


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", Fraction(0)),
        ("12", Fraction(12)),
        ("12.5", Fraction(25, 2)),
        (".04", Fraction(1, 25)),
        ("1:30", Fraction(90)),
        ("90:00", Fraction(5400)),
        ("01:02:03.004", Fraction(3723004, 1000)),
        (" 7 ", Fraction(7)),
        ("100", Fraction(100)),
    ],
)
def test_times(text: str, seconds: Fraction) -> None:
    """Seconds, MM:SS and HH:MM:SS are exact."""
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "abc", "-1", "1:2:3:4", "1:60", "0:60:00", "nan", "1e3", "1:", "٣"]
)
def test_what_is_no_time(text: str) -> None:
    """Anything else is refused with an example."""
    with pytest.raises(UsageError, match="time "):
        parse_time(text)


def test_format() -> None:
    """Messages show hours, minutes, seconds and milliseconds."""
    assert format_time(Fraction(3723004, 1000)) == "1:02:03.004"
    assert format_time(Fraction(0)) == "0:00:00.000"
