"""Videos that the tests make for themselves."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from segcli.overlay.video_in import Window, open_video
from segcli.overlay.video_out import open_writer

WHOLE = Window()


def picture(number: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A smooth picture (so that compression hardly changes it) with a bright block that moves with `number`."""
    height, width = size
    rows, columns = np.mgrid[:height, :width]
    base = np.stack([60 + 100 * columns / width, 60 + 100 * rows / height, 0 * rows + 90], -1)
    x = (8 * number) % max(1, width - 16)
    base[: height // 4, x : x + 16] = (230, 220, 40)
    return base.astype(np.uint8)


def _add_audio(container: av.container.OutputContainer, codec: str, seconds: float) -> Any:
    stream = container.add_stream(codec, rate=48_000)
    stream.layout = "mono"
    total = int(48_000 * seconds)
    wave = (np.sin(np.arange(total) * 2 * np.pi * 440 / 48_000) * 8000).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(wave[None], format="s16", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = 48_000, 0, Fraction(1, 48_000)
    return stream, frame


class Clips:
    """Makes small videos in a folder, and looks into videos."""

    picture = staticmethod(picture)

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(
        self,
        name: str = "in.mp4",
        *,
        pts: Sequence[int] = tuple(range(0, 12_000, 1000)),
        time_base: Fraction = Fraction(1, 25_000),
        rate: Fraction = Fraction(25),
        size: tuple[int, int] = (64, 96),
        audio: str | None = "aac",
        matrix: Sequence[int] | None = None,
        codec: str = "libx264",
        pix_fmt: str = "yuv420p",
        tags: tuple[int, int] = (2, 0),
        sample_aspect_ratio: Fraction | None = None,
    ) -> Path:
        """Write a small video."""
        path = self.folder / name
        mp4 = path.suffix in (".mp4", ".mov")
        options = {"video_track_timescale": str(time_base.denominator)} if mp4 else {}
        if mp4:
            options["movie_timescale"] = str(time_base.denominator)
        encoder = {"bf": "3", "crf": "12"} if codec == "libx264" else {}
        with av.open(str(path), "w", options=options) as out:
            video = out.add_stream(codec, rate=rate, options=encoder)
            video.height, video.width = size
            video.pix_fmt = pix_fmt
            video.codec_context.time_base = video.time_base = time_base
            video.codec_context.colorspace, video.codec_context.color_range = tags
            if sample_aspect_ratio:
                video.codec_context.sample_aspect_ratio = sample_aspect_ratio
            if matrix:
                if not hasattr(video, "set_display_matrix"):
                    pytest.skip("this PyAV cannot write a display matrix")
                video.set_display_matrix(matrix)
            seconds = float((pts[-1] - pts[0] + 1000) * time_base)
            sound = _add_audio(out, audio, seconds) if audio else None
            for number, tick in enumerate(pts):
                frame = av.VideoFrame.from_ndarray(picture(number, size), format="rgb24")
                frame = frame.reformat(format=pix_fmt)
                frame.pts, frame.time_base = tick, time_base
                out.mux(video.encode(frame))
            out.mux(video.encode(None))
            if sound:
                stream, frame = sound
                out.mux(stream.encode(frame))
                out.mux(stream.encode(None))
        return path

    def times(self, path: Path) -> list[Fraction]:
        """Presentation time of each decoded frame, exact, in seconds."""
        with av.open(str(path)) as container:
            return [f.pts * f.time_base for f in container.decode(container.streams.video[0])]

    def frames(self, path: Path) -> list[NDArray[np.uint8]]:
        """All frames, uint8 (H, W, 3) RGB, as stored (not turned)."""
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            return [np.asarray(f.to_ndarray(format="rgb24")) for f in container.decode(stream)]

    def packets(self, path: Path) -> list[tuple[bytes, Fraction]]:
        """Bytes and presentation time of each audio packet."""
        with av.open(str(path)) as container:
            stream = container.streams.audio[0]
            packets = [p for p in container.demux(stream) if p.dts is not None]
            return [(bytes(p), p.pts * p.time_base) for p in packets]

    def copy(
        self, source: Path, target: Path, window: Window = WHOLE, *, audio: bool = True
    ) -> int:
        """Through our reader and writer; the number of frames."""
        with open_video(source) as video, open_writer(target, video, window, audio=audio) as writer:
            for frame in video.frames(window):
                writer.write(frame, frame.rgb)
        return writer.frames

    def header(self, path: Path) -> dict[str, Any]:
        """What the file says of itself."""
        with av.open(str(path)) as container:
            video = container.streams.video[0]
            context = video.codec_context
            return {
                "duration": container.duration,
                "codec": context.name,
                "pix_fmt": context.pix_fmt,
                "color": (context.colorspace, context.color_range),
                "ratio": video.sample_aspect_ratio,
                "audio": [s.codec_context.name for s in container.streams.audio],
            }


@pytest.fixture
def clips(tmp_path: Path) -> Clips:
    """Small videos in the test's own folder."""
    return Clips(tmp_path)
