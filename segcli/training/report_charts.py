"""Curves as SVG text: no script, no font and no picture from outside, sharp on screen and on paper."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from segcli.training.report_log import Series

Points = NDArray[np.float64]  # (N, 2): step, value; NaN values break the line

_WIDTH, _HEIGHT = 520, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 14, 12, 42
_MOST = 400  # buckets: more than a chart has pixels to show
# dark enough for white paper, told apart by colour-blind eyes (after Okabe and Ito's set)
COLORS = ("#0067a5", "#c8500a", "#00805f", "#a8508a", "#8a6d00", "#4a4a4a", "#3f8fd0", "#7a3b9a")


@dataclass(frozen=True, eq=False)
class Line:
    """One line of a chart.

    Attributes:
        name: in the legend.
        points: float64 (N, 2), step and value.
        raw: unsmoothed points that are drawn faintly behind it, or None.
        dots: mark every point.
    """

    name: str
    points: Points
    raw: Points | None = None
    dots: bool = False


@dataclass(frozen=True)
class Mark:
    """A point that is pointed out, with its label."""

    step: float
    value: float
    label: str


def curve(name: str, series: Series, *, smooth: bool = True) -> Line:
    """A series thinned to what a chart can show; smoothed, with the raw values behind it."""
    raw = thinned(series)
    if not smooth or len(series.steps) < 5:
        return Line(name, raw, dots=len(raw) == 1)
    return Line(name, smoothed(series), raw)


def thinned(series: Series) -> Points:
    """At most 800 points: the lowest and the highest of each bucket, so that spikes stay.

    Returns:
        float64 (N, 2).
    """
    table = np.stack([series.steps, series.values], axis=1)
    if len(table) <= 2 * _MOST:
        return table
    kept: list[int] = []
    for rows in np.array_split(np.arange(len(table)), _MOST):
        there = rows[np.isfinite(table[rows, 1])]
        if len(there) == 0:
            kept.append(int(rows[0]))
            continue
        low, high = there[table[there, 1].argmin()], there[table[there, 1].argmax()]
        kept += sorted({int(low), int(high)})
    return table[kept]


def smoothed(series: Series) -> Points:
    """An exponential mean without the bias of its start, over a fortieth of the run; NaN values are passed over.

    Returns:
        float64 (at most 400, 2).
    """
    there = np.isfinite(series.values)
    steps, values = series.steps[there], series.values[there]
    if len(values) > _MOST:
        groups = np.array_split(np.arange(len(values)), _MOST)
        steps = np.array([steps[g].mean() for g in groups])
        values = np.array([values[g].mean() for g in groups])
    keep = 0.5 ** (1 / max(len(values) / 40, 0.5))
    total = weight = 0.0
    out = np.empty((len(values), 2))
    for i, (step, value) in enumerate(zip(steps, values, strict=True)):
        total, weight = keep * total + value, keep * weight + 1
        out[i] = step, total / weight
    return out


def line_chart(title: str, lines: Sequence[Line], *, y_label: str, mark: Mark | None = None) -> str:
    """A `<figure>` with title, axes, grid, lines and, where there are several lines, a legend.

    Values far above nearly all others are cut off at the top edge, and that is said below.

    Args:
        title: over the chart; escaped.
        lines: with points; those without a finite value are left out.
        y_label: what the vertical axis shows.
        mark: a point that is pointed out.
    """
    shown = [line for line in lines if np.isfinite(line.points[:, 1]).any()]
    if not shown:
        return (
            f'<figure class="chart"><h3>{escape(title)}</h3>'
            "<p>no finite value was logged</p></figure>"
        )
    axes = _Axes.around(shown)
    body = [axes.grid(), _labels(axes, y_label)]
    for color, line in zip(_colors(len(shown)), shown, strict=True):
        if line.raw is not None:
            body.append(_path(axes, line.raw, color, 'stroke-width="1" stroke-opacity=".28"'))
        body.append(_path(axes, line.points, color, 'stroke-width="1.8"'))
        if line.dots:
            body += _dots(axes, line, color)
    if mark is not None:
        body.append(_marked(axes, mark))
    cut = any(bool((_all(line) > axes.high).any()) for line in shown)
    notes = _legend(shown) if len(shown) > 1 else ""
    if cut:
        notes += "<span>higher values are cut off</span>"
    if shown[0].raw is not None:
        notes += "<span>strong: smoothed, faint: as logged</span>"
    return (
        f'<figure class="chart"><h3>{escape(title)}</h3>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"{''.join(body)}</svg><figcaption>{notes}</figcaption></figure>"
    )


def _all(line: Line) -> NDArray[np.float64]:
    """Values as logged where they are drawn, else the line's own."""
    return (line.points if line.raw is None else line.raw)[:, 1]


def _colors(count: int) -> list[str]:
    return [COLORS[i % len(COLORS)] for i in range(count)]


@dataclass(frozen=True)
class _Axes:
    """From steps and values to pixels of the chart."""

    first: float
    last: float
    low: float
    high: float

    @classmethod
    def around(cls, lines: Sequence[Line]) -> _Axes:
        """Steps from 0; values from 0 (below only for negative ones) to what nearly all of them reach."""
        steps = np.concatenate([line.points[:, 0] for line in lines])
        values = np.concatenate([line.points[:, 1] for line in lines])
        high = float(np.nanmax(np.concatenate([values, *(_all(line) for line in lines)])))
        raw = [line.raw[:, 1] for line in lines if line.raw is not None]
        if raw:  # a spike, or the very first steps, must not flatten all that follows
            usual = 1.2 * float(np.nanquantile(np.concatenate(raw), 0.9))
            usual = max(usual, 1.1 * float(np.nanquantile(values, 0.98)))
            high = usual if high > 3 * usual > 0 else high
        low = min(float(np.nanmin(values)), 0.0)
        top = high if high > low else low + 1.0
        return cls(0.0, max(float(steps.max()), 1.0), low, _ticks(low, top, 5, round_up=True)[-1])

    def x(self, step: float) -> float:
        share = (step - self.first) / (self.last - self.first)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        share = (min(value, self.high) - self.low) / (self.high - self.low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    def grid(self) -> str:
        """Grid lines and the numbers on both axes."""
        parts = []
        for value in _ticks(self.low, self.high, 5):
            y = self.y(value)
            parts.append(
                f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>'
                f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number(value)}</text>'
            )
        base = _HEIGHT - _BOTTOM
        for step in _ticks(self.first, self.last, 6):
            x = self.x(step)
            parts.append(
                f'<path class="grid" d="M{x:.1f} {_TOP}V{base}"/>'
                f'<text x="{x:.1f}" y="{base + 16}" text-anchor="middle">{number(step)}</text>'
            )
        return f'{"".join(parts)}<path class="axis" d="M{_LEFT} {_TOP}V{base}H{_WIDTH - _RIGHT}"/>'


def _ticks(low: float, high: float, count: int, *, round_up: bool = False) -> list[float]:
    """Round numbers from `low` to `high`, about `count` of them; with `round_up` the last is at or above `high`."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.ceil(high / step - 1e-9) if round_up else math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def number(value: float) -> str:
    """A number as an axis shows it: `0.002`, `1.5`, `20k`, `1e-05`."""
    for limit, unit in ((1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (1e6 if unit == 'M' else 1e3):g}{unit}"
    return f"{value:.6g}"


def _labels(axes: _Axes, y_label: str) -> str:
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    return (
        f'<text x="{axes.x(axes.last):.0f}" y="{_HEIGHT - 6}" text-anchor="end" class="label">step</text>'
        f'<text transform="translate(12 {middle:.0f}) rotate(-90)" text-anchor="middle" class="label">'
        f"{escape(y_label)}</text>"
    )


def _path(axes: _Axes, points: Points, color: str, style: str) -> str:
    """One line; a value that is not there breaks it. A lone point between two breaks gets a round cap."""
    parts, pen_down = [], False
    for step, value in points.tolist():
        if not math.isfinite(value):
            pen_down = False
            continue
        place = f"{axes.x(step):.1f} {axes.y(value):.1f}"
        parts.append(f"L{place}" if pen_down else f"M{place}l0 0")
        pen_down = True
    return (
        f'<path d="{"".join(parts)}" fill="none" stroke="{color}" stroke-linecap="round" {style}/>'
    )


def _dots(axes: _Axes, line: Line, color: str) -> Iterable[str]:
    for step, value in line.points.tolist():
        if math.isfinite(value):
            yield (
                f'<circle cx="{axes.x(step):.1f}" cy="{axes.y(value):.1f}" r="2.6" fill="{color}">'
                f"<title>{escape(line.name)} {value:.4g} at step {step:.0f}</title></circle>"
            )


def _marked(axes: _Axes, mark: Mark) -> str:
    """A ring, a line down to the axis, and at its foot a label on the side where there is room."""
    x, y = axes.x(mark.step), axes.y(mark.value)
    left = x > _WIDTH * 0.6
    return (
        f'<path class="mark" d="M{x:.1f} {y:.1f}V{_HEIGHT - _BOTTOM}"/>'
        f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="6"/>'
        f'<text class="best" x="{x - 10 if left else x + 10:.1f}" y="{_HEIGHT - _BOTTOM - 8}" '
        f'text-anchor="{"end" if left else "start"}">{escape(mark.label)}</text>'
    )


def _legend(lines: Sequence[Line]) -> str:
    return "".join(
        f'<span><i style="background:{color}"></i>{escape(line.name)}</span>'
        for color, line in zip(_colors(len(lines)), lines, strict=True)
    )
