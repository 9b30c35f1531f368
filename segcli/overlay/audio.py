"""Audio packets from one file into another, bit by bit."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import av
from av.audio.stream import AudioStream

from segcli.errors import OutputError

_SUFFIXES = ((".mp4", "mp4"), (".mov", "mov"), (".mkv", "matroska"))


class AudioCopy:
    """Copies all audio packets of a window, in step with the video that is written beside them."""

    def __init__(
        self,
        source: av.container.InputContainer,
        streams: Sequence[AudioStream],
        target: av.container.OutputContainer,
        *,
        start: Fraction | None = None,
        end: Fraction | None = None,
    ) -> None:
        """Add the streams to the target.

        Args:
            source: the file to read; nobody else may read from it.
            streams: those of it that are copied.
            target: the file to write, not yet begun.
            start: source time in seconds that becomes 0; None keeps all times as they are.
            end: source time in seconds at which to stop; None = copy all.

        Raises:
            OutputError: the target's container cannot hold a stream.
        """
        self._target = target
        self._start, self._end = start, end
        self._outputs = {s.index: _add(target, s) for s in streams}
        self._last: dict[int, int] = {}
        self._packets = source.demux(*streams) if streams else iter(())
        self._waiting: av.Packet[Any] | None = None

    def copy_until(self, time: Fraction | None) -> None:
        """Write the packets that begin up to a source time in seconds; None = all that are left."""
        for packet in self._upcoming():
            if time is not None and _time(packet) > time:
                self._waiting = packet
                return
            self._write(packet)

    def _upcoming(self) -> Iterator[av.Packet[Any]]:
        if self._waiting is not None:
            packet, self._waiting = self._waiting, None
            yield packet
        for packet in self._packets:
            if packet.dts is None and packet.pts is None:  # the end, as PyAV shows it
                continue
            late = self._end is not None and _time(packet) >= self._end
            early = self._start is not None and _time(packet) < self._start
            if not (late or early):
                yield packet

    def _write(self, packet: av.Packet[Any]) -> None:
        index = packet.stream.index
        dts = packet.pts if packet.dts is None else packet.dts
        assert dts is not None
        shift = 0 if self._start is None else round(self._start / packet.time_base)
        # containers want strictly increasing times; some broken files repeat one
        dts = max(dts - shift, self._last.get(index, dts - shift - 1) + 1)
        self._last[index] = dts
        packet.pts = dts if packet.pts is None else max(packet.pts - shift, dts)
        packet.dts = dts
        packet.duration = self._duration(packet, packet.pts + shift)
        packet.stream = self._outputs[index]
        self._target.mux_one(packet)

    def _duration(self, packet: av.Packet[Any], pts: int) -> int:
        """Ticks that a packet lasts: less than it holds where the source's edit list ends within it."""
        duration, stream = packet.duration or 0, packet.stream
        if self._end is not None or stream.duration is None:
            return duration
        end = (stream.start_time or 0) + stream.duration
        return int(max(1, min(duration, end - pts)))


def _time(packet: av.Packet[Any]) -> Fraction:
    """When a packet begins, in seconds of the source."""
    ticks = packet.pts if packet.pts is not None else packet.dts
    assert ticks is not None
    return ticks * packet.time_base


def _add(target: av.container.OutputContainer, stream: AudioStream) -> AudioStream:
    known: Any = stream.codec_context  # None where FFmpeg has no decoder
    name = "of an unknown kind" if known is None else known.name
    if name not in target.supported_codecs:
        others = " or ".join(s for s, kind in _SUFFIXES if name in _supported(kind))
        raise OutputError(
            f"audio {name}: a {target.format.name} file cannot hold it; "
            + (f"write to {others}, or " if others else "")
            + "leave the audio out with --no-audio"
        )
    return target.add_stream_from_template(stream)


def _supported(kind: str) -> set[str]:
    with av.open(io.BytesIO(), "w", kind) as container:
        return container.supported_codecs
