"""Video out: timestamps, sizes, colours and sound survive."""

from __future__ import annotations

import itertools
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from segcli.errors import OutputError, UsageError
from segcli.overlay.video_in import Window, open_video
from segcli.overlay.video_out import check_output, movie_timescale, open_writer, partial_file


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="plain-with-b-frames"),
        pytest.param({"pts": (0, 1000, 1500, 4000, 9000, 9001, 20_000)}, id="variable-rate"),
        pytest.param({"pts": (5003, 6003, 7103, 8003)}, id="starts-late"),
        pytest.param({"pts": (0,)}, id="one-frame"),
        pytest.param(
            {
                "time_base": Fraction(1001, 30_000),
                "rate": Fraction(30_000, 1001),
                "pts": range(10),
                "audio": None,
            },
            id="ntsc",
        ),
        pytest.param(
            {
                "name": "in.ts",
                "time_base": Fraction(1, 90_000),
                "pts": range(0, 36_000, 3600),
                "audio": None,
            },
            id="transport-stream",
        ),
        pytest.param(
            {
                "name": "in.mkv",
                "time_base": Fraction(1, 1000),
                "pts": (0, 33, 67, 100),
                "audio": None,
            },
            id="matroska",
        ),
        pytest.param(
            {
                "name": "in.avi",
                "codec": "mpeg4",
                "time_base": Fraction(1, 25),
                "pts": range(6),
                "audio": None,
            },
            id="avi-without-timestamps",
        ),
    ],
)
def test_timestamps_are_exact(clips: Any, tmp_path: Path, options: dict[str, Any]) -> None:
    """Each frame of the output has the very time of its source frame, as a fraction; nothing is lost or doubled."""
    source, target = clips.make(**options), tmp_path / "out.mp4"
    clips.copy(source, target)
    assert clips.times(target) == clips.times(source)
    found = clips.header(target)
    assert (found["codec"], found["pix_fmt"]) == ("h264", "yuv420p")
    if source.suffix == ".mp4":
        assert found["duration"] == clips.header(source)["duration"]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".m4v", ".mkv"])
def test_audio_is_copied_bit_by_bit(clips: Any, tmp_path: Path, suffix: str) -> None:
    """Every audio packet has the same bytes and time; priming before 0 too.

    Matroska knows no time before 0: there all streams begin later, by the same.
    """
    source, target = clips.make(), tmp_path / f"out{suffix}"
    clips.copy(source, target)
    expected, found = clips.packets(source), clips.packets(target)
    assert expected[0][1] < 0
    assert [data for data, _ in found] == [data for data, _ in expected]
    mkv = suffix == ".mkv"
    shift, rounding = (-expected[0][1], Fraction(1, 1000)) if mkv else (0, 0)
    times = zip(clips.times(target), clips.times(source), strict=True)
    packets = ((one, other) for (_, one), (_, other) in zip(found, expected, strict=True))
    for one, other in itertools.chain(times, packets):
        assert abs(one - other - shift) <= rounding


def test_index_stands_in_front(clips: Any, tmp_path: Path) -> None:
    """The mp4's index lies before its data, so that players on the web start at once."""
    clips.copy(clips.make(), tmp_path / "out.mp4")
    data = (tmp_path / "out.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_no_audio(clips: Any, tmp_path: Path) -> None:
    """The sound can be left out, and a silent video stays silent."""
    clips.copy(clips.make(), tmp_path / "a.mp4", audio=False)
    clips.copy(clips.make("silent.mp4", audio=None), tmp_path / "b.mp4")
    assert (
        clips.header(tmp_path / "a.mp4")["audio"] == clips.header(tmp_path / "b.mp4")["audio"] == []
    )


def test_audio_that_the_container_cannot_hold(clips: Any, tmp_path: Path) -> None:
    """The error names the codec and both ways out, and leaves no file; .mkv takes the sound."""
    source = clips.make("in.mkv", audio="wavpack", time_base=Fraction(1, 1000), pts=(0, 40, 80))
    with pytest.raises(
        OutputError,
        match=r"audio wavpack: a mp4 file cannot hold it; write to \.mkv, or .*--no-audio",
    ):
        clips.copy(source, tmp_path / "out.mp4")
    assert sorted(p.name for p in tmp_path.glob("*out*")) == []
    clips.copy(source, tmp_path / "out.mkv")
    assert [p for p, _ in clips.packets(tmp_path / "out.mkv")] == [
        p for p, _ in clips.packets(source)
    ]


@pytest.mark.parametrize(
    "tags",
    [
        pytest.param((2, 0), id="untagged"),
        pytest.param((1, 1), id="bt709"),
        pytest.param((6, 1), id="bt601"),
        pytest.param((1, 2), id="bt709-full-range"),
        pytest.param((6, 2), id="bt601-full-range"),
        pytest.param((9, 1), id="bt2020"),
    ],
)
def test_colours_survive(clips: Any, tmp_path: Path, tags: tuple[int, int]) -> None:
    """The YUV numbers stay the same, whatever matrix and range the source states, and so does the statement."""
    source, target = clips.make(tags=tags), tmp_path / "out.mp4"
    clips.copy(source, target)
    assert clips.header(target)["color"] == clips.header(source)["color"]
    with av.open(str(source)) as one, av.open(str(target)) as other:
        pairs = zip(one.decode(video=0), other.decode(video=0), strict=True)
        for before, after in itertools.islice(pairs, 3):
            planes = [np.asarray(f.to_ndarray()).astype(int) for f in (before, after)]
            assert np.abs(planes[0] - planes[1]).mean() < 1.5
            assert abs((planes[1] - planes[0]).mean()) < 0.5


@pytest.mark.parametrize(
    ("matrix", "turns"),
    [
        # QuickTime's matrix (a b u c d v x y w): x' = a x + c y, y' = b x + d y
        pytest.param((0, 1, 0, -1, 0, 0), -1, id="clockwise"),
        pytest.param((-1, 0, 0, 0, -1, 0), 2, id="upside-down"),
        pytest.param((0, -1, 0, 1, 0, 0), 1, id="counter-clockwise"),
        pytest.param((1, 0, 0, 0, 1, 0), 0, id="upright"),
    ],
)
def test_rotation_is_carried_out(
    clips: Any, tmp_path: Path, matrix: tuple[int, ...], turns: int
) -> None:
    """Frames come out as players show them, and the output needs no turning any more."""
    full = (*(v * 65_536 for v in matrix), 0, 0, 1 << 30)
    source = clips.make(matrix=full, sample_aspect_ratio=Fraction(4, 3))
    target = tmp_path / "out.mp4"
    clips.copy(source, target)
    stored, found = clips.frames(source), clips.frames(target)
    for before, after in zip(stored, found, strict=True):
        difference = np.abs(np.rot90(before, turns).astype(int) - after)
        assert difference.mean() < 3
    with av.open(str(target)) as container:
        assert next(container.decode(video=0)).rotation == 0
    assert clips.header(target)["ratio"] == (Fraction(3, 4) if turns % 2 else Fraction(4, 3))


@pytest.mark.parametrize(
    ("size", "even"), [((65, 97), (66, 98)), ((64, 97), (64, 98)), ((64, 96), (64, 96))]
)
def test_odd_sizes_are_padded(
    clips: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    size: tuple[int, int],
    even: tuple[int, int],
) -> None:
    """The last row or column is doubled, all pixels stay where they were, and it is said."""
    source = clips.make(
        "in.mkv",
        size=size,
        codec="ffv1",
        pix_fmt="yuv444p",
        time_base=Fraction(1, 1000),
        pts=(0, 40),
        audio=None,
    )
    target = tmp_path / "out.mp4"
    clips.copy(source, target)
    before, after = clips.frames(source)[0], clips.frames(target)[0]
    assert after.shape[:2] == even
    assert np.abs(after[: size[0], : size[1]].astype(int) - before).mean() < 4
    assert ("doubled" in capsys.readouterr().err) == (size != even)


@pytest.mark.parametrize(
    ("start", "end", "first", "last"),
    [
        pytest.param(None, Fraction(1, 5), 0, 4, id="end"),
        pytest.param(Fraction(1, 5), None, 5, 11, id="start"),
        pytest.param(Fraction(9, 50), Fraction(3, 10), 5, 7, id="between-frames"),
        pytest.param(Fraction(0), Fraction(100), 0, 11, id="more-than-there-is"),
    ],
)
def test_window(
    clips: Any,
    tmp_path: Path,
    start: Fraction | None,
    end: Fraction | None,
    first: int,
    last: int,
) -> None:
    """Frames from start to before end are kept, from time 0 on, with the audio packets of the same moments."""
    source, target = clips.make(), tmp_path / "out.mp4"
    count = clips.copy(source, target, Window(start, end))
    times = clips.times(source)
    assert count == last - first + 1
    origin = times[first] if start is not None else Fraction(0)
    assert clips.times(target) == [t - origin for t in times[first : last + 1]]
    kept = [
        (data, time - origin)
        for data, time in clips.packets(source)
        if (start is None or time >= origin) and (end is None or time < end)
    ]
    found = clips.packets(target)
    assert [data for data, _ in found] == [data for data, _ in kept]
    assert all(abs(a - b) < Fraction(1, 48_000) for (_, a), (_, b) in zip(found, kept, strict=True))


def test_outputs_that_are_refused(clips: Any, tmp_path: Path) -> None:
    """Unknown suffixes, the input itself, folders, and files that exist are refused before any work."""
    source = clips.make()
    (tmp_path / "there.mp4").write_bytes(b"mine")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "link.mp4").symlink_to(source)
    cases = (
        ("a.avi", UsageError, "cannot write '.avi'"),
        ("a", UsageError, "no suffix"),
        ("in.mp4", UsageError, "is the input"),
        ("link.mp4", UsageError, "is the input"),
        ("folder.mp4", OutputError, "a folder"),
        ("there.mp4", OutputError, "exists; give --overwrite"),
    )
    for name, kind, reason in cases:
        with pytest.raises(kind, match=reason):
            check_output(tmp_path / name, source, overwrite=False)
    check_output(tmp_path / "there.mp4", source, overwrite=True)
    check_output(tmp_path / "new.MP4", source, overwrite=False)
    with pytest.raises(OutputError, match="cannot write"), partial_file(source / "a.mp4"):
        pass


def test_a_stopped_write_leaves_nothing(clips: Any, tmp_path: Path) -> None:
    """Whatever ends the work, Ctrl-C too, the old file stays and no half file is left."""
    source, target = clips.make(), tmp_path / "out" / "x.mp4"
    target.parent.mkdir()
    target.write_bytes(b"old")

    def stop() -> None:
        with (
            open_video(source) as video,
            open_writer(target, video, Window(), audio=True) as writer,
        ):
            for frame in video.frames(Window()):
                writer.write(frame, frame.rgb)
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert [p.name for p in target.parent.iterdir()] == ["x.mp4"]
    assert target.read_bytes() == b"old"


@pytest.mark.parametrize(
    ("ticks", "rates", "expected"),
    [
        (25_000, [], 25_000),
        (25_000, [48_000], 1_200_000),
        (90_000, [44_100, 48_000], 35_280_000),
        (1_000_003, [44_100], 1_000_003),
    ],
)
def test_movie_timescale(ticks: int, rates: list[int], expected: int) -> None:
    """A multiple of the video's clock, and of the audio's where 32 bits hold it."""
    assert movie_timescale(ticks, rates) == expected


def test_what_a_killed_run_left_goes_after_a_day(tmp_path: Path) -> None:
    """Of the same output alone; one that may still be written stays."""
    names = [".a[1].old.tmp.mp4", ".a[1].new.tmp.mp4", ".b.old.tmp.mp4", ".a[1].old.tmp.mkv"]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
        if ".old" in name:
            os.utime(tmp_path / name, (1, 1))
    with partial_file(tmp_path / "a[1].mp4"):
        pass
    assert {p.name for p in tmp_path.iterdir()} == {"a[1].mp4", *names[1:]}
