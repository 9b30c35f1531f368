"""Charts as SVG."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from segcli.training.report_charts import (
    Line,
    Mark,
    curve,
    line_chart,
    number,
    smoothed,
    thinned,
)
from segcli.training.report_log import Series


def _series(values: list[float]) -> Series:
    return Series(np.arange(1, len(values) + 1, dtype=np.float64), np.array(values, np.float64))


def _svg(figure: str) -> ElementTree.Element:
    found = re.search(r"<svg.*</svg>", figure)
    assert found is not None
    return ElementTree.fromstring(found.group(0))


def _numbers(figure: str) -> list[float]:
    return [
        float(v)
        for path in re.findall(r' d="([^"]*)"', figure)
        for v in re.findall(r"-?[\d.]+", path)
    ]


@pytest.mark.parametrize(
    "values",
    [[], [float("nan")], [float("nan")] * 3],
    ids=["no point", "one that is not finite", "none that is finite"],
)
def test_nothing_to_draw(values: list[float]) -> None:
    """The chart says so instead of drawing empty axes."""
    text = line_chart("Loss", [curve("loss", _series(values))], y_label="loss")

    assert "no finite value was logged" in text
    assert "<svg" not in text


@pytest.mark.parametrize(
    "values",
    [[1.0], [0.0], [0.0] * 9, [-2.0, -1.0], [1e-9, 2e-9], [1e30, 2e30], [1.0, float("nan"), 2.0]],
    ids=["one", "zero", "all zero", "negative", "tiny", "huge", "with a gap"],
)
def test_lines_stay_inside(values: list[float]) -> None:
    """Whatever the values, the SVG is sound and all of it lies inside its frame."""
    text = line_chart("x", [curve("x", _series(values))], y_label="x")
    _svg(text)

    assert all(-1 <= v <= 521 for v in _numbers(text))


def test_a_gap_breaks_the_line() -> None:
    """A value that is not finite is not bridged."""
    line = Line("x", np.array([[1, 1], [2, 1], [3, np.nan], [4, 1], [5, 1]], np.float64))
    text = line_chart("x", [line], y_label="x")
    drawn = [p.get("d") for p in _svg(text).iter("path") if p.get("stroke")]

    assert len(drawn) == 1
    assert str(drawn[0]).count("M") == 2


def test_names_are_escaped_and_the_best_is_marked() -> None:
    """Title, legend, axis and mark hold any text."""
    bad = '<b>&"x"'
    lines = [Line(bad, np.array([[1, 0.1], [2, 0.3]]), dots=True), Line("b", np.array([[1, 0.2]]))]
    text = line_chart(bad, lines, y_label=bad, mark=Mark(2, 0.3, f"best {bad}"))

    assert "<b>" not in text
    assert "best &lt;b&gt;&amp;&quot;x&quot;" in text
    marks = [c for c in _svg(text).iter("circle") if c.get("class") == "mark"]
    assert len(marks) == 1


def test_a_spike_does_not_flatten_the_rest() -> None:
    """One value of a thousand times the others is cut off, and that is said."""
    values = [1.0 + i % 7 / 10 for i in range(300)]
    values[150] = 2000.0
    text = line_chart("x", [curve("x", _series(values))], y_label="x")
    ticks = [t.text for t in _svg(text).iter("text")]

    assert "higher values are cut off" in text
    assert "1000" not in ticks


def test_thinning_keeps_ends_and_spikes() -> None:
    """100,000 points become at most 800, among them the highest and the lowest."""
    values = np.sin(np.arange(100_000) / 500)
    values[31_415], values[27_182] = 9.0, -9.0
    values[60_000:61_000] = np.nan
    points = thinned(Series(np.arange(100_000.0), values))

    assert len(points) <= 800
    assert [31_415, 9.0] in points.tolist()
    assert [27_182, -9.0] in points.tolist()
    assert np.all(np.diff(points[:, 0]) > 0)
    assert np.isnan(points[:, 1]).any()


def test_smoothing_of_a_constant_is_the_constant() -> None:
    """Also at its start: the mean is without bias; gaps are passed over."""
    values = [3.0] * 50
    values[7] = float("nan")
    points = smoothed(_series(values))

    assert len(points) == 49
    np.testing.assert_allclose(points[:, 1], 3.0, rtol=1e-12)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0002, "0.0002"), (1e-05, "1e-05"), (2.5, "2.5"), (1250, "1250"), (20_000, "20k"), (1.5e6, "1.5M")],
)  # fmt: skip
def test_numbers_on_axes(value: float, text: str) -> None:
    """Short, and without digits that are only rounding."""
    assert number(value) == text
