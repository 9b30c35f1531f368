"""Video in: numbers, times and colours of frames, and what is no video."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from segcli.errors import DataError
from segcli.overlay.video_in import Window, open_video


@pytest.mark.parametrize(("kr", "kb", "tags"), [(0.2126, 0.0722, (1, 1)), (0.299, 0.114, (6, 1))])
def test_rgb_is_what_the_matrix_says(
    clips: Any, kr: float, kb: float, tags: tuple[int, int]
) -> None:
    """RGB of a decoded frame equals the textbook formula on its YUV numbers."""
    source = clips.make(tags=tags)
    with av.open(str(source)) as container:
        yuv = np.asarray(next(container.decode(video=0)).to_ndarray()).astype(float)
    luma, chroma = (yuv[:64] - 16) / 219, (yuv[64:] - 128) / 224
    cb, cr = (np.kron(c.reshape(32, 48), np.ones((2, 2))) for c in (chroma[:16], chroma[16:]))
    red, blue = luma + 2 * (1 - kr) * cr, luma + 2 * (1 - kb) * cb
    green = (luma - kr * red - kb * blue) / (1 - kr - kb)
    expected = np.stack([red, green, blue], -1) * 255
    with open_video(source) as video:
        rgb = next(video.frames(Window())).rgb
    smooth = np.s_[24:56, 4:92]  # away from edges, where chroma is interpolated
    assert np.abs(rgb[smooth] - expected[smooth]).mean() < 1.5


def test_times_of_a_window_count_from_the_video_s_start(clips: Any, tmp_path: Path) -> None:
    """In a stream whose clock does not start at 0, --start means what a player shows."""
    source = clips.make(
        "in.ts", time_base=Fraction(1, 90_000), pts=range(90_000, 126_000, 3600), audio=None
    )
    assert clips.copy(source, tmp_path / "out.mp4", Window(Fraction(1, 5), None)) == 5


def test_indices_count_from_the_first_frame(clips: Any) -> None:
    """A frame has the same number in any window; expected counts follow the window."""
    with open_video(clips.make()) as video:
        window = Window(Fraction(1, 5), Fraction(2, 5))
        assert [f.index for f in video.frames(window)] == [5, 6, 7, 8, 9]
        assert video.estimated_frames(window) == 5
        assert video.estimated_frames(Window()) == 12


def test_damaged_packets_do_not_end_the_video(clips: Any) -> None:
    """A packet that cannot be decoded is counted; the frames after it still come."""
    source = clips.make(
        "in.mov",
        codec="png",
        pix_fmt="rgb24",
        time_base=Fraction(1, 1000),
        pts=range(0, 400, 40),
        audio=None,
    )
    data = bytearray(source.read_bytes())
    place = data.index(b"IHDR", data.index(b"IHDR") + 4)  # of the second frame
    data[place - 16 : place + 40] = bytes(56)
    source.write_bytes(data)
    with open_video(source) as video:
        indices = [f.index for f in video.frames(Window())]
        assert video.damaged >= 1
    assert indices == list(range(len(indices)))
    assert 7 <= len(indices) < 10


def cover_only(tmp_path: Path) -> Path:
    path = tmp_path / "song.m4a"
    with av.open(str(path), "w", format="mp4") as out:
        stream = out.add_stream("aac", rate=48_000)
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 4800), np.int16), format="s16", layout="mono"
        )
        frame.sample_rate, frame.pts = 48_000, 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "notes.mp4"
    path.write_text("no video at all")
    return path


def playlist(tmp_path: Path) -> Path:
    path = tmp_path / "list.mp4"
    path.write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"
    )
    return path


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(lambda folder: folder / "gone.mp4", "absent", id="absent"),
        pytest.param(lambda folder: folder, "a folder", id="folder"),
        pytest.param(text_file, "cannot be read as a video", id="text"),
        pytest.param(cover_only, "no video stream in it", id="only-sound"),
        pytest.param(playlist, "cannot be read as a video", id="playlist-fetches-nothing"),
    ],
)
def test_what_is_no_video(tmp_path: Path, make: Callable[[Path], Path], reason: str) -> None:
    """One line says what is wrong with the input."""
    path = make(tmp_path)
    with pytest.raises(DataError, match=reason) as caught, open_video(path):
        pass
    assert "\n" not in str(caught.value)


def test_size_change_is_refused(clips: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A video whose frames change their size is refused with both sizes."""
    source = clips.make()
    with open_video(source) as video:
        sizes = iter([(4, 6), (8, 6)])
        monkeypatch.setattr(video, "_upright", lambda *_: clips.picture(0, next(sizes)))
        with pytest.raises(DataError, match="frame 1 is 6 × 8 pixels, the first 6 × 4"):
            list(video.frames(Window()))
