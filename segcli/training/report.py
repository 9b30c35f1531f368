"""`RUN/report.html`: one file that shows a run, offline and on paper; no script, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segcli.console import escape as visible
from segcli.files import write_bytes
from segcli.training.report_charts import Line, Mark, curve, line_chart
from segcli.training.report_facts import (
    Row,
    class_rows,
    fraction,
    metric_rows,
    mishaps,
    settings_rows,
    version_rows,
    weights_rows,
)
from segcli.training.report_log import RunLog, read_log
from segcli.training.report_names import shown

if TYPE_CHECKING:
    from segcli.annotations import Dataset
    from segcli.device import Compute

NAME = "report.html"
_BEST = "best.safetensors"
_OTHER_CHARTS = 8


def write_report(
    run: Path,
    *,
    steps: int | None = None,
    val: Dataset | None = None,
    compute: Compute | None = None,
) -> Path:
    """Make the report of a run, finished or not, from what lies in its folder.

    Without `val` it takes well under a second. With it, the best weights predict on a few validation pictures.

    Args:
        run: RUN, with `metrics.jsonl`, `config.toml` and `best.safetensors`; each may be absent.
        steps: that the run is to have in all, where known.
        val: validation set, of which the best and worst pictures are shown.
        compute: where the pictures are predicted; None = on the CPU in fp32.

    Returns:
        `RUN/report.html`.

    Raises:
        UsageError: `config.toml` is damaged.
        ModelError: pictures are wanted and `best.safetensors` cannot be used.
    """
    log = read_log(run / "metrics.jsonl")
    sections = [
        ("Curves", _curves(log)),
        ("Figures", _figures(log)),
        ("Best and worst pictures", _pictures(run, val, compute)),
        ("What went wrong", _mishaps(log)),
        ("Settings", _table(("setting", "as given", "resolved"), settings_rows(run))),
        ("Weights", _weights(run / _BEST)),
        ("Versions", _table(("what", "version"), version_rows())),
    ]
    body = "".join(f"<section><h2>{title}</h2>{text}</section>" for title, text in sections if text)
    title = f"{shown(run.resolve().name)}: training report"
    page = _PAGE.format(title=title, style=_STYLE, head=_head(log, steps), body=body)
    write_bytes(run / NAME, page.encode("utf-8"))
    return run / NAME


def _head(log: RunLog, steps: int | None) -> str:
    """The most important figures, and how far the run is."""
    best = log.best()
    tiles = []
    if best is not None:
        when = f"after step {best.step:,}"
        tiles.append(("mask AP" if best.mask else "box AP", fraction(best.ap), f"best, {when}"))
        if best.mask:
            tiles.append(("box AP", fraction(best.box.get("AP")), when))
    planned = f"of {steps:,}" if steps is not None else f"epoch {log.epoch}"
    tiles.append(("steps", f"{log.step:,}", planned))
    tiles.append(("training time", _duration(log.seconds), "evaluation apart"))
    speed = log.series.get("pictures_per_s")
    if speed is not None and np.isfinite(speed.values).any():
        tiles.append(("pictures/s", f"{np.nanmedian(speed.values):.3g}", "median"))
    cells = "".join(
        f"<div><span>{name}</span><b>{value}</b><span>{note}</span></div>"
        for name, value, note in tiles
    )
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    state = "" if steps is None or log.step >= steps else " The run is going on, or was stopped."
    return f"<p>Made {made}.{state}</p><div class=tiles>{cells}</div>"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _curves(log: RunLog) -> str:
    """AP, losses, learning rate, gradient norm, speed, and whatever else was logged."""
    series = dict(log.series)
    if not series and not log.evaluations:
        return "<p>Nothing was logged yet.</p>"
    charts = [_ap_chart(log)] if log.evaluations else []
    if "loss" in series:
        charts.append(line_chart("Loss", [curve("loss", series.pop("loss"))], y_label="loss"))
    parts = {name: series.pop(name) for name in list(series) if name.startswith("loss_")}
    if parts:
        lines = [curve(name.removeprefix("loss_"), part) for name, part in parts.items()]
        charts.append(line_chart("Parts of the loss", lines, y_label="loss"))
    for name, title, smooth in _KNOWN:
        if name in series:
            line = curve(title, series.pop(name), smooth=smooth)
            charts.append(line_chart(title, [line], y_label=title.lower()))
    for name in list(series)[:_OTHER_CHARTS]:
        charts.append(line_chart(visible(name), [curve(name, series[name])], y_label=visible(name)))
    return f"<div class=charts>{''.join(charts)}</div>"


_KNOWN = (
    ("lr", "Learning rate", False),
    ("gradient_norm", "Gradient norm", True),
    ("pictures_per_s", "Pictures per second", True),
)


def _ap_chart(log: RunLog) -> str:
    lines = []
    for name, tables in (
        ("mask AP", [e.mask for e in log.evaluations]),
        ("box AP", [e.box for e in log.evaluations]),
    ):
        values = [np.nan if (v := t.get("AP")) is None else v for t in tables]
        points = np.array([[e.step for e in log.evaluations], values], np.float64).T
        if any(tables):
            lines.append(Line(name, points, dots=len(points) <= 100))
    best = log.best()
    mark = None
    if best is not None and best.ap is not None:
        mark = Mark(best.step, best.ap, f"best {best.ap:.3f}, step {best.step:,}")
    return line_chart("AP on the validation set", lines, y_label="AP", mark=mark)


def _figures(log: RunLog) -> str:
    best = log.best() or (log.evaluations[-1] if log.evaluations else None)
    if best is None:
        return "<p>The run was not validated.</p>"
    last = log.evaluations[-1]
    columns = ("", "mask, best", "box, best", "mask, last", "box, last")
    text = (
        f"<p>Best: step {best.step:,}, epoch {best.epoch}. Last: step {last.step:,}, epoch {last.epoch}. "
        "Fractions of 1; – where the truth has no such object.</p>"
        + _table(columns, metric_rows(best, last), numeric=True)
    )
    classes = class_rows(best)
    if classes:
        columns = ("class", "objects", "detections", "mask AP", "box AP")
        text += "<h3>Per class, best</h3>" + _table(columns, classes, numeric=True)
    return text


def _pictures(run: Path, val: Dataset | None, compute: Compute | None) -> str:
    if val is None or not (run / _BEST).exists():
        return ""
    import torch

    from segcli.config import PredictConfig
    from segcli.device import Compute
    from segcli.prediction.predictor import Predictor
    from segcli.training.report_pictures import gallery, judged_pictures
    from segcli.zoo import load_model

    compute = compute or Compute(torch.device("cpu"), "fp32")
    with torch.random.fork_rng(
        devices=[]
    ):  # a network is made with random numbers, which are the run's own
        model = load_model(str(run))
        network = model.build()
    predictor = Predictor(network, model.categories, compute, config=PredictConfig())
    judged = judged_pictures(predictor, val)
    return gallery(judged, val.categories, len(val.pictures))


def _mishaps(log: RunLog) -> str:
    sentences, rows = mishaps(log)
    if not sentences:
        return "<p>No mishap was logged.</p>"
    listed = "".join(f"<li>{shown(sentence)}</li>" for sentence in sentences)
    return f"<ul>{listed}</ul>" + _table(("step", "what", "why", "pictures"), rows)


def _weights(path: Path) -> str:
    if not path.exists():
        return "<p>There are no weights yet.</p>"
    try:
        return _table(("what", "value"), weights_rows(path))
    except ValueError as error:
        return f"<p>{shown(path.name)} cannot be used: {shown(error)}</p>"


def _table(columns: Sequence[str], rows: Iterable[Row], *, numeric: bool = False) -> str:
    """A table; nothing where there are no rows. With `numeric`, all columns but the first are aligned to the right."""
    lines = [f"<tr>{''.join(f'<td>{shown(cell)}</td>' for cell in row)}</tr>" for row in rows]
    if not lines:
        return ""
    head = "".join(f"<th>{shown(name)}</th>" for name in columns)
    kind = " class=numbers" if numeric else ""
    return f"<div class=wide><table{kind}><tr>{head}</tr>{''.join(lines)}</table></div>"


_STYLE = """
:root{color-scheme:light}*{box-sizing:border-box}
body{font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif;color:#1d2329;background:#fff;
max-width:1120px;margin:0 auto;padding:24px 20px 60px}
h1{font-size:24px;margin:0 0 4px}
h2{font-size:19px;margin:36px 0 10px;border-bottom:1px solid #d6dbe0;padding-bottom:4px}
h3{font-size:15px;margin:14px 0 6px}p{margin:4px 0 10px}code{font-size:.95em;overflow-wrap:anywhere}
figure{margin:0;break-inside:avoid}figcaption{font-size:13px;color:#4b545c}
.tiles{display:flex;flex-wrap:wrap;gap:10px;margin-top:12px}
.tiles div{border:1px solid #d6dbe0;border-radius:6px;padding:8px 16px;min-width:140px}
.tiles b{display:block;font-size:24px;line-height:1.25}.tiles span{font-size:13px;color:#4b545c;display:block}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,460px),1fr));gap:18px 28px}
.chart h3{margin:0 0 2px}.chart svg{width:100%;height:auto;display:block}
.chart text{font-size:12px;fill:#4b545c}
.chart .best{font-weight:600;fill:#1d2329;paint-order:stroke;stroke:#fff;stroke-width:4px}
.grid{stroke:#e6e9ec;fill:none}.axis{stroke:#8a939b;fill:none}
.mark{stroke:#1d2329;fill:none;stroke-width:1.3}path.mark{stroke-dasharray:3 3}
.chart figcaption span{margin-right:14px;display:inline-block}
.chart i{display:inline-block;width:14px;height:4px;border-radius:2px;margin-right:5px;vertical-align:middle}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:14px}
th,td{text-align:left;vertical-align:top;padding:3px 18px 3px 0;border-bottom:1px solid #e6e9ec;
overflow-wrap:break-word}
td:first-child{white-space:nowrap}td:last-child{overflow-wrap:anywhere}
th{font-weight:600}.numbers td+td,.numbers th+th{text-align:right;font-variant-numeric:tabular-nums}
.pairs{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,500px),1fr));gap:22px 28px}
.pair>div{display:grid;grid-template-columns:1fr 1fr;gap:8px}.pair b{font-size:13px}
.pair img{width:100%;height:auto;display:block}.missed{color:#c00000}.extra{color:#b34a00}
@media print{body{padding:0;max-width:none;font-size:11px}h2{margin-top:20px}h2,h3{break-after:avoid}
.wide{overflow:visible}.charts,.pairs{grid-template-columns:minmax(0,1fr) minmax(0,1fr)}
.tiles div{min-width:0}.tiles b{font-size:18px}table,.tiles span,figcaption{font-size:10px}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width,initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body><header><h1>{title}</h1>{head}</header>{body}</body></html>
"""
