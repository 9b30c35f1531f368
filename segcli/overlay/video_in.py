"""Video in: decoded frames, upright, with their own timestamps."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from segcli.console import warn
from segcli.errors import DataError
from segcli.overlay.timecode import format_time

QUALITY = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)
# a playlist in a video's clothes must not make us fetch other files or addresses
_OPEN_OPTIONS = {"protocol_whitelist": "file"}
_MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
    10: Colorspace.BT2020,
}


@dataclass(frozen=True)
class Window:
    """Part of a video, in seconds from its start.

    Attributes:
        start: first moment that is kept; None = from the beginning, with the timestamps of the source.
        end: first moment that is not; None = to the end.
    """

    start: Fraction | None = None
    end: Fraction | None = None

    def holds(self, time: Fraction) -> bool:
        """Whether a moment is kept."""
        return (self.start is None or time >= self.start) and not self.is_past(time)

    def is_past(self, time: Fraction) -> bool:
        """Whether a moment lies behind all that is kept."""
        return self.end is not None and time >= self.end


@dataclass(frozen=True)
class ColorSpec:
    """How a video's YUV numbers stand for colours.

    Attributes:
        matrix: for conversion; where the source does not say, by size: BT.709 from 720 rows on, else BT.601.
        range: for conversion; limited (MPEG) where the source does not say.
        tags: colorspace, range, primaries and transfer as the source says them, for the output's header.
    """

    matrix: Colorspace
    range: ColorRange
    tags: tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class Frame:
    """One decoded frame.

    Attributes:
        index: number in decoding order of display, from 0, of the whole video.
        pts: timestamp in ticks of the stream's time base.
        duration: in ticks; 0 where the source does not say.
        time: seconds from the video's start.
        rgb: uint8 (H, W, 3), upright.
    """

    index: int
    pts: int
    duration: int
    time: Fraction
    rgb: NDArray[np.uint8]


class VideoInput:
    """The first video stream of a file; made by `open_video`.

    Attributes:
        path: the file.
        stream: PyAV's stream.
        time_base: seconds per tick.
        rate: frames per second, on average.
        origin: time of the file's first moment in seconds; players show it as 0.
        color: how colours are coded.
        damaged: packets that could not be decoded so far.
        turned_sideways: whether frames come out with width and height exchanged; known after the first frame.
    """

    def __init__(self, path: Path, container: av.container.InputContainer) -> None:
        self.path = path
        self.stream = _video_stream(path, container)
        self.time_base = self.stream.time_base or Fraction(1, 90_000)
        self.rate = self.stream.average_rate or self.stream.guessed_rate or Fraction(25)
        self.origin = Fraction(container.start_time or 0, av.time_base)
        self.metadata = dict(container.metadata)
        self.color = _color_spec(self.stream)
        self.damaged = 0
        self.turned_sideways = False
        self._container = container
        self._duration = container.duration

    def estimated_frames(self, window: Window) -> int:
        """About how many frames the window holds, for the progress bar; 0 = not known."""
        if self._duration is None:
            return self.stream.frames
        length = Fraction(self._duration, av.time_base)
        end = length if window.end is None else min(window.end, length)
        share = (end - (window.start or 0)) / length if length else Fraction(0)
        total = self.stream.frames or length * self.rate
        return max(0, round(total * share))

    def frames(self, window: Window) -> Iterator[Frame]:
        """Frames of the window in display order; those before it are decoded, so that indices are true.

        Raises:
            DataError: the size changes within the video.
        """
        convert = VideoReformatter()
        size = None
        for index, (frame, pts) in enumerate(self._timed()):
            time = pts * self.time_base - self.origin
            if window.is_past(time):
                return
            if not window.holds(time):
                continue
            rgb = self._upright(convert, frame)
            size = size or rgb.shape
            if rgb.shape != size:
                raise DataError(
                    f"{self.path}: frame {index} is {rgb.shape[1]} × {rgb.shape[0]} pixels, the first "
                    f"{size[1]} × {size[0]}; videos that change their size cannot be drawn on"
                )
            yield Frame(index, pts, frame.duration or 0, time, rgb)

    def _timed(self) -> Iterator[tuple[av.VideoFrame, int]]:
        """Frames with strictly increasing timestamps, as every container wants them."""
        step = max(1, round(1 / (self.rate * self.time_base)))
        last: int | None = None
        repaired = 0
        for frame in self._decoded():
            pts = frame.pts if frame.pts is not None else frame.dts
            if pts is None:
                pts = 0 if last is None else last + step
            if last is not None and pts <= last:
                pts, repaired = last + 1, repaired + 1
            last = pts
            yield frame, pts
        if repaired:
            warn(
                f"{self.path}: {repaired} timestamps ran backwards and were moved behind the one before"
            )

    def _decoded(self) -> Iterator[av.VideoFrame]:
        """All frames; damaged packets are counted and left out, the rest of the video is not lost."""
        packets = self._container.demux(self.stream)
        while True:
            try:
                packet = next(packets, None)
                frames = [] if packet is None else packet.decode()
            except av.error.InvalidDataError:
                self.damaged += 1
                continue
            if packet is None:
                return
            yield from frames

    def _upright(self, convert: VideoReformatter, frame: av.VideoFrame) -> NDArray[np.uint8]:
        picture = convert.reformat(
            frame,
            format="rgb24",
            src_colorspace=self.color.matrix,
            dst_colorspace=self.color.matrix,
            src_color_range=self.color.range,
            dst_color_range=ColorRange.JPEG,
            interpolation=QUALITY,
        )
        pixels = np.asarray(picture.to_ndarray(), np.uint8)
        turns = quarter_turns(frame)
        self.turned_sideways = turns % 2 == 1
        return np.ascontiguousarray(np.rot90(pixels, turns))


def quarter_turns(frame: av.VideoFrame) -> int:
    """How often the frame must be turned by 90° against the clock to stand upright; the display matrix says it."""
    return round(frame.rotation / 90) % 4


@contextmanager
def open_video(path: Path) -> Iterator[VideoInput]:
    """Open a video file for reading.

    Raises:
        DataError: absent, no video, or damaged.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "absent"
        raise DataError(f"{path}: {found}, expected a video file")
    try:
        with open_container(path) as container:
            yield VideoInput(path, container)
    except av.error.FFmpegError as error:
        raise DataError(f"{path}: cannot be read as a video ({error.strerror})") from error


def open_container(path: Path) -> av.container.InputContainer:
    """PyAV's container of a local file; an absolute path is never taken for an address."""
    return av.open(os.fspath(path.absolute()), options=_OPEN_OPTIONS)


def describe_window(window: Window) -> str:
    """`from 0:00:01.000 to 0:00:02.000`, for messages."""
    start = "the beginning" if window.start is None else format_time(window.start)
    end = "the end" if window.end is None else format_time(window.end)
    return f"from {start} to {end}"


def _video_stream(path: Path, container: av.container.InputContainer) -> VideoStream:
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:  # the cover of a song is no video
            stream.thread_type = "AUTO"
            return stream
    kinds = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
    raise DataError(f"{path}: no video stream in it (found: {kinds})")


def _color_spec(stream: VideoStream) -> ColorSpec:
    context = stream.codec_context
    guess = Colorspace.ITU709 if context.height >= 720 else Colorspace.ITU601
    full = context.color_range == ColorRange.JPEG or (context.pix_fmt or "").startswith("yuvj")
    span = ColorRange.JPEG if full else ColorRange.MPEG
    tags = (
        int(context.colorspace),
        int(span if full else context.color_range),
        int(context.color_primaries),
        int(context.color_trc),
    )
    return ColorSpec(_MATRICES.get(tags[0], guess), span, tags)
