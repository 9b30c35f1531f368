"""Video out: H.264 with the source's timestamps, and its audio copied bit by bit."""

from __future__ import annotations

import glob
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.video.reformatter import ColorRange, VideoReformatter
from numpy.typing import NDArray

from segcli.console import say
from segcli.errors import OutputError, UsageError
from segcli.files import drop_abandoned, fsync_folder
from segcli.overlay.audio import AudioCopy
from segcli.overlay.video_in import QUALITY, Frame, VideoInput, Window, open_container

# by suffix; only these hold H.264 with B-frames and a timestamp per frame
CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
_ENCODER = {"crf": "18", "preset": "veryfast"}
_NOT_COPIED = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder"})


def check_output(path: Path, source: Path, *, overwrite: bool) -> None:
    """Refuse an output before any work is done.

    Raises:
        UsageError: the suffix stands for no container that we write, or the output is the input.
        OutputError: the file exists.
    """
    if path.suffix.lower() not in CONTAINERS:
        known = " ".join(CONTAINERS)
        raise UsageError(f"{path}: cannot write {path.suffix or 'no suffix'!r}; use one of {known}")
    if path.exists() and source.exists() and path.samefile(source):
        raise UsageError(f"{path}: the output is the input; choose another --output")
    if path.is_dir():
        raise OutputError(f"{path}: a folder, expected the name of a video file")
    if path.exists() and not overwrite:
        raise OutputError(f"{path}: exists; give --overwrite to replace it, or another --output")


@contextmanager
def partial_file(path: Path) -> Iterator[Path]:
    """A file beside `path` that takes its name when the block ends without an error, and is deleted otherwise.

    Unlike `files.atomic_writer` it gives a name, not a stream: FFmpeg opens it again to move the index to its front.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix, suffix = f".{path.stem[:80]}.", f".tmp{path.suffix}"
        drop_abandoned(path.parent.glob(f"{glob.escape(prefix)}*{glob.escape(suffix)}"))
        handle, name = tempfile.mkstemp(prefix=prefix, suffix=suffix, dir=path.parent)
    except OSError as error:
        raise OutputError(f"{path}: cannot write here ({error.strerror})") from error
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        partial.chmod(0o666 & ~umask)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


class VideoWriter:
    """Writes frames and copies audio; made by `open_writer`. The file begins with the first frame.

    Attributes:
        frames: written so far.
    """

    def __init__(self, path: Path, video: VideoInput, window: Window, *, audio: bool) -> None:
        self.frames = 0
        self._path = path
        self._video = video
        self._window = window
        self._with_audio = audio
        self._container: av.container.OutputContainer | None = None
        self._source: av.container.InputContainer | None = None
        self._shift = 0  # ticks between the source's timestamps and ours
        self._convert = VideoReformatter()
        self._durations: dict[int, int] = {}  # of the frames that the encoder holds, by timestamp
        self._last_pts = 0

    def write(self, frame: Frame, rgb: NDArray[np.uint8]) -> None:
        """Encode one frame, uint8 (H, W, 3), at the time of `frame`, and the audio up to it."""
        if self._container is None:
            self._start(frame, rgb)
        color = self._video.color
        picture = self._convert.reformat(
            av.VideoFrame.from_ndarray(_even(rgb), format="rgb24"),
            format="yuv420p",
            src_colorspace=color.matrix,
            dst_colorspace=color.matrix,
            src_color_range=ColorRange.JPEG,
            dst_color_range=color.range,
            interpolation=QUALITY,
        )
        picture.pts = frame.pts - self._shift
        picture.time_base = self._video.time_base
        self._durations[picture.pts] = frame.duration
        self._last_pts = picture.pts
        self._encode(picture)
        self._audio.copy_until(frame.pts * self._video.time_base)
        self.frames += 1

    def finish(self) -> None:
        """Write what is left, and the index; nothing where there was no frame."""
        if self._container is None:
            return
        self._durations[self._last_pts] = self._last_duration()
        self._encode(None)
        self._audio.copy_until(None)
        self._container.close()
        self._container = None

    def _encode(self, picture: av.VideoFrame | None) -> None:
        """Encode a frame, or with None those that the encoder still holds; packets last as long as their frames."""
        assert self._container is not None
        for packet in self._stream.encode(picture):
            duration = self._durations.pop(packet.pts or 0, 0)
            packet.duration = duration or packet.duration
            self._container.mux_one(packet)

    def _last_duration(self) -> int:
        """Ticks up to the end of the source's stream; 0 where it is not known: decoders only guess."""
        stream = self._video.stream
        if self._window.end is not None or stream.duration is None:
            return 0
        return max(0, (stream.start_time or 0) + stream.duration - self._last_pts - self._shift)

    def close(self) -> None:
        """Let go of all files; after `finish` only of the source's audio."""
        if self._source is not None:
            self._source.close()
        if self._container is not None:  # an error is under way, the file will be deleted
            try:
                self._container.close()
            except av.error.FFmpegError as error:
                say(f"{self._path}: not closed cleanly ({error.strerror})")

    def _start(self, first: Frame, rgb: NDArray[np.uint8]) -> None:
        video, kind = self._video, CONTAINERS[self._path.suffix.lower()]
        start = None
        if self._window.start is not None:
            self._shift = first.pts
            start = first.pts * video.time_base
        end = None if self._window.end is None else self._window.end + video.origin
        self._source = open_container(video.path)
        streams = self._source.streams.audio if self._with_audio else ()
        options = {} if kind == "matroska" else _movie_options(video.time_base, streams)
        self._container = av.open(os.fspath(self._path.absolute()), "w", kind, options=options)
        self._container.metadata.update(
            {k: v for k, v in video.metadata.items() if k not in _NOT_COPIED}
        )
        self._stream = self._add_video(rgb)
        self._audio = AudioCopy(self._source, streams, self._container, start=start, end=end)
        if kind == "matroska" and 1000 % video.time_base.denominator:
            say("Matroska counts in milliseconds, so timestamps are rounded (.mp4 keeps them)")

    def _add_video(self, rgb: NDArray[np.uint8]) -> av.video.stream.VideoStream:
        assert self._container is not None
        height, width = rgb.shape[:2]
        if height % 2 or width % 2:
            say(
                f"{width} × {height} pixels: H.264 wants even sizes, the last column or row is doubled"
            )
        stream = self._container.add_stream("libx264", rate=self._video.rate, options=_ENCODER)
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt = "yuv420p"
        stream.time_base = self._video.time_base
        context = stream.codec_context
        context.time_base = self._video.time_base
        context.colorspace, context.color_range, context.color_primaries, context.color_trc = (
            self._video.color.tags
        )
        ratio = self._video.stream.sample_aspect_ratio
        if ratio:
            context.sample_aspect_ratio = 1 / ratio if self._video.turned_sideways else ratio
        return stream


@contextmanager
def open_writer(
    path: Path, video: VideoInput, window: Window, *, audio: bool
) -> Iterator[VideoWriter]:
    """A writer for `path`, which appears under its name only when all is written.

    Args:
        path: the output; its suffix decides the container.
        video: where time base, colours and audio come from.
        window: the part that is written.
        audio: copy all audio streams.

    Raises:
        OutputError: it cannot be written, or the container cannot hold the audio.
    """
    with partial_file(path) as partial:
        writer = VideoWriter(partial, video, window, audio=audio)
        try:
            yield writer
            writer.finish()
        except av.error.FFmpegError as error:
            raise OutputError(f"{path}: cannot be written ({error.strerror})") from error
        finally:
            writer.close()


def _movie_options(time_base: Fraction, audio: Sequence[AudioStream]) -> dict[str, str]:
    """Options of the mov/mp4 writer that keep every timestamp exact, the first one too.

    The start of each track is kept in units of the movie's own time scale, milliseconds unless told.
    """
    ticks = time_base.denominator
    return {
        "movflags": "faststart",
        "video_track_timescale": str(ticks),
        "movie_timescale": str(movie_timescale(ticks, [s.rate for s in audio])),
    }


def movie_timescale(ticks: int, rates: Sequence[int]) -> int:
    """Ticks per second that hold those of the video and as many audio rates as 32 bits allow."""
    scale = ticks
    for rate in rates:
        both = math.lcm(scale, rate)
        if both < 2**31:
            scale = both
    return scale


def _even(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """With the last row or column doubled where the size is odd."""
    height, width = rgb.shape[:2]
    if height % 2 == 0 and width % 2 == 0:
        return rgb
    return np.pad(rgb, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
