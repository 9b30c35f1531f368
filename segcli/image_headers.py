"""What Pillow does not tell of a picture's header: PNG's checksums and late EXIF, and why a file is no picture."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from PIL.TiffImagePlugin import ImageFileDirectory_v2

from segcli.errors import ImageError


def _png_chunks(stream: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    """Kind and length of each chunk of a PNG, the stream standing at its data."""
    stream.seek(8)
    while len(head := stream.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        place = stream.tell()
        yield kind, length
        stream.seek(place + length + 4)


def late_png_exif(path: Path) -> bytes:
    """The EXIF block that a PNG may carry behind its pixels; empty where there is none."""
    with path.open("rb") as stream:
        for kind, length in _png_chunks(stream):
            if kind == b"eXIf":
                return stream.read(length)
    return b""


def check_png(path: Path) -> None:
    """Pillow does not compare the checksums of pixel chunks; damage there would go unseen."""
    with path.open("rb") as stream:
        for kind, length in _png_chunks(stream):
            data, check = stream.read(length), stream.read(4)
            critical = kind[:1].isupper()
            if critical and len(check) == 4 and zlib.crc32(kind + data) != int.from_bytes(check):
                name = kind.decode("latin-1")
                raise ImageError(f"{path}: damaged (checksum of PNG chunk {name!r} is wrong)")


def why_unidentified(path: Path) -> str:
    """Why Pillow did not take a file for a picture."""
    with path.open("rb") as stream:
        head = stream.read(8)
        if not head:
            return "empty file, expected a picture"
        if head[:4] in (b"II*\0", b"MM\0*"):
            return _why_tiff(stream, head)
    return "no picture inside, or its header is damaged; expected JPEG, PNG, WebP, GIF, TIFF, BMP or PNM"


def _why_tiff(stream: IO[bytes], head: bytes) -> str:
    try:
        tags = ImageFileDirectory_v2(head)
        stream.seek(tags.next)
        tags.load(stream)
        if 256 not in tags:  # no width
            return "a TIFF whose header is damaged"
        channels, bits = int(tags.get(277, 1)), tags.get(258, (1,))[0]
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, struct.error):
        return "a TIFF whose header is damaged"
    return (
        f"a TIFF of {channels} channels of {bits} bits in a form that cannot be read; "
        "expected 1 (grey), 3 (RGB) or 4 (RGBA, CMYK) channels of 8 or 16 bits"
    )
