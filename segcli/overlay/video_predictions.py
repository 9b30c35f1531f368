"""Predictions of a video's frames: a COCO file whose pictures are `IN#000123`, tied to the video by its hash."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from segcli.categories import Categories
from segcli.errors import DataError
from segcli.files import atomic_writer, sha256
from segcli.instances import Instances
from segcli.overlay.video_in import Frame
from segcli.prediction.reader import read_predictions
from segcli.version import __version__


def frame_key(video: Path, index: int) -> str:
    """Name of a frame's row, such as `IN.mp4#000123`."""
    return f"{video.name}#{index:06d}"


class FramePredictions:
    """Predictions of one video, read from a file and unpacked frame by frame.

    Attributes:
        categories: names for the labels.
    """

    def __init__(self, path: Path, video: Path) -> None:
        """Read `path` and check that it belongs to `video`.

        Raises:
            DataError: it holds no predictions of a video, or of another one.
        """
        file = read_predictions(path)
        header = file.extra.get("video")
        if file.categories is None or not isinstance(header, dict):
            raise DataError(
                f"{path}: no predictions of a video (no `video` header); "
                "`segcli overlay video … --save-predictions FILE` makes them"
            )
        _check_video(path, header, video)
        self.categories: Categories = file.categories
        self._every = int(header.get("every", 1))
        self._pictures = {_frame_index(path, p.file_name): p for p in file.pictures}
        self._last: tuple[int, Instances] | None = None

    def instances(self, frame: Frame) -> Instances:
        """Objects of a frame; between two frames that were predicted, those of the one before."""
        height, width = frame.rgb.shape[:2]
        for index in self._candidates(frame.index):
            picture = self._pictures.get(index)
            if picture is not None:
                self._last = index, picture.instances((height, width))
                break
        if self._last is None or frame.index - self._last[0] >= self._every:
            return Instances.empty((height, width))
        return self._last[1]

    def _candidates(self, index: int) -> range:
        """Frames whose objects may hold for this one, last first; at the start the one before may not be drawn."""
        return range(index, index - (self._every if self._last is None else 1), -1)


class PredictionLog:
    """Writes predictions frame by frame; made by `open_log`. Nothing is kept in memory."""

    def __init__(
        self, rows: IO[bytes], frames: IO[bytes], video: Path, categories: Categories
    ) -> None:
        self._rows, self._frames = rows, frames
        self._video = video
        self._categories = categories
        self._pictures = 0
        self._objects = 0

    def add(self, frame: Frame, instances: Instances, time_base: str) -> None:
        """Append a frame and its objects."""
        self._pictures += 1
        height, width = instances.image_size
        image = {
            "id": self._pictures,
            "file_name": frame_key(self._video, frame.index),
            "height": height,
            "width": width,
            "pts": frame.pts,
            "time_base": time_base,
        }
        _append(self._frames, image, first=self._pictures == 1)
        areas = None if instances.masks is None else instances.masks.area()
        for i in range(len(instances)):
            self._objects += 1
            row = {"id": self._objects, "image_id": self._pictures, **self._row(instances, i)}
            if areas is not None:
                row["area"] = int(areas[i])
            _append(self._rows, row, first=self._objects == 1)

    def _row(self, instances: Instances, i: int) -> dict[str, Any]:
        x0, y0, x1, y1 = (float(v) for v in instances.boxes[i])
        row: dict[str, Any] = {
            "category_id": self._categories.ids[instances.labels[i]],
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "iscrowd": 0,
        }
        if instances.scores is not None:
            row["score"] = float(instances.scores[i])
        if instances.masks is not None:
            row["segmentation"] = instances.masks.coco(i)
        return row


@contextmanager
def open_log(
    path: Path, video: Path, categories: Categories, *, every: int
) -> Iterator[PredictionLog]:
    """A log that becomes the file `path` when the block ends without an error.

    Args:
        path: the file to write.
        video: the video; its size and hash go into the header.
        categories: of all labels.
        every: distance in frames between two that are predicted.
    """
    header = {
        "info": {"description": f"segcli {__version__}"},
        "video": {**identity(video), "every": every},
        "categories": categories.to_coco(),
    }
    with atomic_writer(path) as stream, tempfile.TemporaryFile() as frames:
        stream.write(_dumps(header)[:-1] + b',\n"annotations":[')
        yield PredictionLog(stream, frames, video, categories)
        stream.write(b'],\n"images":[')
        frames.seek(0)
        shutil.copyfileobj(frames, stream)
        stream.write(b"]}\n")


def identity(video: Path) -> dict[str, Any]:
    """What tells one video from another: name, size in bytes, SHA-256."""
    return {"name": video.name, "size": video.stat().st_size, "sha256": sha256(video)}


def _check_video(path: Path, header: dict[str, Any], video: Path) -> None:
    found = video.stat().st_size
    same = header.get("size") == found and header.get("sha256") == sha256(video)
    if not same:
        raise DataError(
            f"{path}: made from another video ({header.get('name')}, {header.get('size')} bytes, "
            f"SHA-256 {str(header.get('sha256'))[:12]}…), not from {video} ({found} bytes)"
        )


def _frame_index(path: Path, name: str | None) -> int:
    number = (name or "").rpartition("#")[2]
    if not (number.isascii() and number.isdigit()):
        raise DataError(f"{path}: picture {name!r}: expected a frame's name, such as IN.mp4#000123")
    return int(number)


def _append(stream: IO[bytes], row: dict[str, Any], *, first: bool) -> None:
    stream.write((b"\n" if first else b",\n") + _dumps(row))


def _dumps(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
