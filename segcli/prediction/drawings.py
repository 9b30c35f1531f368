"""Overlays and mask PNGs, made from shards after prediction, so that their flags may change from start to start.

A log beside them (`.drawn-overlays.jsonl`, `.drawn-masks.jsonl`) says with which settings and from which row each file
was drawn. A drawing is made again only where it is missing or was drawn otherwise; one whose row no longer counts is
removed. Where the settings differ, all old ones are removed first, so a kill never leaves a mixture.
"""

from __future__ import annotations

import errno
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segcli.categories import Categories
from segcli.config import DrawConfig
from segcli.console import progress
from segcli.errors import DataError
from segcli.files import write_bytes
from segcli.instances import Instances
from segcli.output import DRAWINGS, drawn_log, place
from segcli.overlay.writing import overlay_name
from segcli.prediction.ahead import map_ahead
from segcli.prediction.pipeline import Source
from segcli.prediction.reasons import reason
from segcli.prediction.recording import Row, drawn_objects, instances_of
from segcli.prediction.shards import Entry, Index, encode, read_rows
from segcli.version import __version__

_AHEAD = 4
_MOST_OBJECTS = 65535  # what 16 bits hold
# of one file's name, not of the disk: such a picture goes without a drawing
_BAD_NAME = frozenset({errno.ENAMETOOLONG, errno.EINVAL})

Render = Callable[[Row, Source, str], bytes]


@dataclass(frozen=True)
class DrawJob:
    """Where drawings come from and go to.

    Attributes:
        out: the OUT folder.
        index: rows that count; only good ones are drawn.
        keys: all pictures of the plan, in natural order.
        path: where a picture is, by key.
    """

    out: Path
    index: Index
    keys: Sequence[str]
    path: Callable[[str], Path]


@dataclass
class _Log:
    """What was drawn: by key the file's name and its row's shard and offset."""

    settings: dict[str, Any] = field(default_factory=dict)
    drawn: dict[str, tuple[str, int, int]] = field(default_factory=dict)


def draw_overlays(
    job: DrawJob,
    categories: Categories,
    style: DrawConfig,
    *,
    read: Callable[[Source], NDArray[np.uint8]],
) -> list[tuple[str, str]]:
    """Draw the objects on the pictures, into `overlays/`, under the pictures' own relative names.

    Returns:
        Key and reason of each picture that could not be drawn.
    """
    from segcli.overlay.render import draw_instances
    from segcli.overlay.writing import encode_like

    def render(row: Row, source: Source, name: str) -> bytes:
        image = draw_instances(read(source), instances_of(row), categories, style)
        return encode_like(image, source.path, PurePosixPath(name).suffix)

    return _draw(job, "overlays", {"version": __version__, **asdict(style)}, render)


def draw_masks(job: DrawJob, draw_score: float) -> list[tuple[str, str]]:
    """Write instance-id PNGs, into `masks/`, as `<picture's name>.png`.

    Returns:
        Key and reason of each picture that could not be drawn.
    """

    def render(row: Row, _source: Source, _name: str) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(paint_ids(instances_of(row), draw_score)).save(buffer, "PNG")
        return buffer.getvalue()

    return _draw(job, "masks", {"version": __version__, "draw_score": draw_score}, render)


def paint_ids(instances: Instances, draw_score: float) -> NDArray[np.uint16]:
    """An instance-id picture: 0 is background, i the i-th object of the row, counted from 1.

    Larger objects are painted first, so that small ones on top of them stay visible. Objects below the draw score
    are left out; the others keep their numbers.

    Returns:
        uint16 (H, W).

    Raises:
        DataError: there are no masks, or more objects than 16 bits can number.
    """
    canvas = np.zeros(instances.image_size, np.uint16)
    masks = instances.masks
    if masks is None:
        raise DataError("the model gave boxes but no masks")
    if len(masks) > _MOST_OBJECTS:
        raise DataError(f"{len(masks)} objects, a 16-bit PNG can number {_MOST_OBJECTS}")
    areas = masks.area()
    for i in sorted(drawn_objects(instances, draw_score), key=lambda i: -areas[i]):
        crop, (x, y) = masks.crop(i)
        canvas[y : y + crop.shape[0], x : x + crop.shape[1]][crop] = i + 1
    return canvas


def drop_stale(out: Path, index: Index) -> None:
    """Remove drawings whose row no longer counts: of pictures that changed, vanished, failed or ran again."""
    for kind in DRAWINGS:
        log = _read_log(out, kind)
        stale = [k for k, (_, *at) in log.drawn.items() if at != _position(index.get(k))]
        for key in stale:
            place(out / kind, log.drawn.pop(key)[0]).unlink(missing_ok=True)
        if stale:
            _write_log(out, kind, log)


def _position(entry: Entry | None) -> list[int]:
    return [] if entry is None or entry.error is not None else [entry.shard, entry.offset]


def output_names(kind: str, keys: Sequence[str]) -> dict[str, str]:
    """File name of each key's drawing, relative to `out/kind`; no two are equal.

    Masks get `.png` behind the whole name. Overlays keep the name; `a.gif`, which cannot be written, becomes
    `a.gif.png`, or `a.gif.png.png` if `a.gif.png` is a picture of its own.
    """
    if kind == "masks":
        return {key: f"{key}.png" for key in keys}
    names = {key: overlay_name(key) for key in keys}
    taken = {name for key, name in names.items() if name == key}
    for key, name in names.items():
        if name == key:
            continue
        while name in taken:
            name += ".png"
        names[key] = name
        taken.add(name)
    return names


def _draw(
    job: DrawJob, kind: str, settings: dict[str, Any], render: Render
) -> list[tuple[str, str]]:
    """Draw what is missing; files are written here, in the caller's thread, and rendered in others."""
    names = output_names(kind, job.keys)
    log = _log_for(job.out, kind, settings)
    todo = [key for key in job.keys if _is_due(job, kind, log.drawn.get(key), key, names[key])]
    _write_log(job.out, kind, log)
    failed = []
    with (
        drawn_log(job.out, kind).open("ab") as stream,
        progress(len(todo), kind, "pictures") as bar,
    ):
        for key, drawing in _render_all(job, todo, names, render):
            error = drawing if isinstance(drawing, str) else None
            if isinstance(drawing, bytes):
                error = _write(place(job.out / kind, names[key]), drawing, job.path(key))
            if error is None:
                entry = job.index[key]
                row = {"file": key, "name": names[key], "at": [entry.shard, entry.offset]}
                stream.write(encode(row))
                stream.flush()
            else:
                failed.append((key, f"{kind}: {error}"))
            bar.update()
    return failed


def _log_for(out: Path, kind: str, settings: dict[str, Any]) -> _Log:
    """The log, if it is of these settings; else an empty one, after what was drawn otherwise is removed."""
    log = _read_log(out, kind)
    if log.settings == settings:
        return log
    for name, *_ in log.drawn.values():
        place(out / kind, name).unlink(missing_ok=True)
    return _Log(settings)


def _is_due(
    job: DrawJob, kind: str, drawn: tuple[str, int, int] | None, key: str, name: str
) -> bool:
    position = _position(job.index.get(key))
    if not position:
        return False
    return drawn != (name, *position) or not place(job.out / kind, name).is_file()


def _render_all(
    job: DrawJob, keys: Sequence[str], names: dict[str, str], render: Render
) -> Iterator[tuple[str, bytes | str]]:
    """Each key with its file's bytes, or with the reason why there are none."""

    def one(row: Row) -> tuple[str, bytes | str]:
        key: str = row["file"]
        source = Source(key, job.path(key))
        try:
            return key, render(row, source, names[key])
        except Exception as error:
            return key, reason(error, source.path)

    yield from map_ahead(one, read_rows(job.out, job.index, keys), ahead=_AHEAD)


def _write(path: Path, data: bytes, picture: Path) -> str | None:
    """Write one drawing; the reason where its name is not possible or it is the picture itself."""
    try:
        if path.exists() and path.samefile(picture):
            return f"would replace the picture itself, which is also {path}"
        write_bytes(path, data, fsync=False)
    except OSError as error:
        if error.errno not in _BAD_NAME:
            raise
        return f"its name cannot be written ({error.strerror})"
    return None


def _read_log(out: Path, kind: str) -> _Log:
    """The log; a last line that a kill cut off is left out, its drawing is then made again."""
    path = drawn_log(out, kind)
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    log = _Log()
    try:
        for row in map(json.loads, lines):
            if "settings" in row:
                log.settings = row["settings"]
            else:
                log.drawn[row["file"]] = (row["name"], row["at"][0], row["at"][1])
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise DataError(f"{path}: damaged ({error!r}); delete it to draw anew") from error
    return log


def _write_log(out: Path, kind: str, log: _Log) -> None:
    rows: list[Row] = [{"settings": log.settings}]
    rows += [{"file": k, "name": name, "at": at} for k, (name, *at) in log.drawn.items()]
    write_bytes(drawn_log(out, kind), b"".join(encode(row) for row in rows))
