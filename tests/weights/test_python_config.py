"""mmdetection's configs are read as data."""

from __future__ import annotations

from pathlib import Path

import pytest

from segcli.weights.python_config import UNKNOWN, read_config


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", {}, id="empty"),
        pytest.param("a = 1\nb = [a, -2.5, 'x', None, True]", {"a": 1, "b": [1, -2.5, "x", None, True]}, id="values"),
        pytest.param("a = dict(x=1, y=dict(z=(1, 2)))", {"a": {"x": 1, "y": {"z": [1, 2]}}}, id="dict"),
        pytest.param("n = dict(m=[1])\na = dict(t='N', **n)", {"n": {"m": [1]}, "a": {"t": "N", "m": [1]}}, id="stars"),
        pytest.param("a = {'x': {**{'y': 2}}}", {"a": {"x": {"y": 2}}}, id="braces"),
        pytest.param("a = open('f')\nb = [x for x in 'ab']", {"a": UNKNOWN, "b": UNKNOWN}, id="calls"),
        pytest.param("import os\nos.system('true')\na = 1", {"a": 1}, id="statements"),
        pytest.param("/home/u/configs/mask.py\na = 1\n", {"a": 1}, id="the file's name first"),
        pytest.param(
            "base.py\nm = dict(a=1, b=dict(c=2))\n\nown.py\nm = dict(b=dict(d=3))",
            {"m": {"a": 1, "b": {"c": 2, "d": 3}}}, id="several files merge",
        ),
        pytest.param(
            "base.py\nm = dict(b=dict(c=2))\nown.py\nm = dict(b=dict(_delete_=True, d=3))",
            {"m": {"b": {"d": 3}}}, id="_delete_",
        ),
    ],
)  # fmt: skip
def test_what_is_read(text: str, expected: dict[str, object]) -> None:
    """Literals, dict() calls, names assigned before; the rest is unknown, and nothing runs."""
    assert read_config(text) == expected


def test_nothing_is_executed(tmp_path: Path) -> None:
    """Not even what stands in a default of a dict."""
    target = tmp_path / "ran"
    read_config(f"a = dict(x=open({str(target)!r}, 'w'))\nopen({str(target)!r}, 'w')")
    assert not target.exists()


@pytest.mark.parametrize("text", ["a = ", "a = (" * 3000, "\0", "def f(:"])
def test_what_is_no_python(text: str) -> None:
    """One kind of error."""
    with pytest.raises(ValueError, match="no Python text"):
        read_config(text)


def test_deep_nesting_becomes_unknown() -> None:
    """No recursion without an end."""
    assert "a" in read_config("a = " + "[" * 90 + "]" * 90)
    assert "unknown" in repr(read_config("a = -" + "-" * 150 + "1"))
