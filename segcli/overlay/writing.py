"""Overlays as files: their names, and their bytes in the format of the picture they were drawn on."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segcli.errors import OutputError

_ORIENTATION = 0x0112
# GIF holds 256 colours and PGM only grey, so overlays on them become PNG
_WRITERS: dict[str, tuple[str, dict[str, Any]]] = {
    # colour at full resolution (4:4:4): thin coloured outlines smear without it
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".png": ("PNG", {"compress_level": 3}),  # level 6 takes three times as long for 5 % less
    ".webp": ("WEBP", {"quality": 95, "method": 2}),
    ".tif": ("TIFF", {"compression": "tiff_lzw"}),
    ".tiff": ("TIFF", {"compression": "tiff_lzw"}),
    ".bmp": ("BMP", {}),
    ".ppm": ("PPM", {}),
}
_HOLDS_METADATA = ("JPEG", "PNG", "WEBP")


@dataclass(frozen=True)
class Metadata:
    """What an overlay takes over from its picture.

    Attributes:
        exif: EXIF block with Orientation 1 (the pixels are upright now), or None.
        icc: colour profile of RGB pixels, or None.
    """

    exif: bytes | None = None
    icc: bytes | None = None


def overlay_name(key: str) -> str:
    """Relative name of the overlay of a picture: its own, `.png` added where its format cannot be written."""
    suffix = PurePosixPath(key).suffix.lower()
    return key if suffix in _WRITERS else f"{key}.png"


def encode_image(
    rgb: NDArray[np.uint8],
    suffix: str,
    *,
    exif: bytes | None = None,
    icc: bytes | None = None,
) -> bytes:
    """Encode a picture.

    Args:
        rgb: uint8 (H, W, 3), RGB, upright.
        suffix: of the file's name, with dot, any case.
        exif: EXIF block; only JPEG, PNG and WebP hold it.
        icc: colour profile; likewise.

    Raises:
        OutputError: the format cannot be written, or cannot hold a picture so large.
    """
    if suffix.lower() not in _WRITERS:
        known = " ".join(sorted(_WRITERS))
        raise OutputError(f"pictures cannot be written as {suffix!r}; expected one of {known}")
    kind, options = _WRITERS[suffix.lower()]
    extra: dict[str, Any] = {}
    if kind in _HOLDS_METADATA:
        extra = {k: v for k, v in (("exif", exif), ("icc_profile", icc)) if v}
    buffer = io.BytesIO()
    try:
        Image.fromarray(rgb).save(buffer, kind, **options, **extra)
    except (OSError, ValueError) as error:
        height, width = rgb.shape[:2]
        raise OutputError(
            f"{width} × {height} pixels cannot be written as {kind} ({error})"
        ) from error
    return buffer.getvalue()


def metadata(path: Path) -> Metadata:
    """EXIF and colour profile of a picture file; damaged ones are left out, the pixels matter more."""
    try:
        with path.open("rb") as stream, Image.open(stream, formats=_HOLDS_METADATA) as image:
            icc = image.info.get("icc_profile") if image.mode in ("RGB", "RGBA") else None
            # a PNG without it in front of its pixels would be decoded in search of it
            return Metadata(_upright(image) if "exif" in image.info else None, icc)
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, struct.error):
        return Metadata()


def _upright(image: Image.Image) -> bytes | None:
    exif = image.getexif()
    if not len(exif):
        return None
    exif[_ORIENTATION] = 1
    return exif.tobytes()


def encode_like(rgb: NDArray[np.uint8], source: Path, suffix: str) -> bytes:
    """Encode an overlay with the metadata of the picture file it was drawn on.

    Args:
        rgb: uint8 (H, W, 3), RGB, upright.
        source: the picture.
        suffix: of the overlay's name, with dot.
    """
    kept = metadata(source)
    return encode_image(rgb, suffix, exif=kept.exif, icc=kept.icc)
