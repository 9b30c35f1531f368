"""Pictures in: every file becomes upright RGB, or an `ImageError` that says in one line why not.

Pillow decodes. Its two process-wide switches are not used: `LOAD_TRUNCATED_IMAGES` is shared by all threads, so
truncation is dealt with here, picture by picture; and the limit on pixels is ours, checked on the header's size.
"""

from __future__ import annotations

import io
import stat
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from segcli.console import say
from segcli.errors import ImageError
from segcli.image_headers import check_png, late_png_exif, why_unidentified

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".pgm", ".ppm"}
)
MAX_PIXELS = 300_000_000
# Never all that Pillow knows: its EPS reader, for one, starts another program.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM")
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = frozenset({5, 6, 7, 8})
_UNDONE = {6: 8, 8: 6}  # every other orientation is its own inverse

Image.MAX_IMAGE_PIXELS = (
    None  # Pillow's guard warns and fails at limits of its own; ours replaces it
)
# what Pillow grumbles about (odd EXIF, palette transparency) either does not matter or becomes an error
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


@dataclass(frozen=True)
class ImageInfo:
    """What a picture's header says.

    Attributes:
        size: (H, W) in pixels, upright; the frame of everything in segcli.
        raw_size: (H, W) in pixels as stored, before EXIF rotation.
        orientation: EXIF orientation, 1..8; 1 where there is none or it is damaged.
        frames: how many frames or pages; only the first is ever used.
    """

    size: tuple[int, int]
    raw_size: tuple[int, int]
    orientation: int
    frames: int


def image_info(path: Path) -> ImageInfo:
    """Read a picture's header, not its pixels.

    Raises:
        ImageError: the file is absent, or no picture that can be read.
    """
    with _opened(path) as image:
        return _info(image, path)


def read_image(
    path: Path,
    *,
    allow_truncated: bool = False,
    max_pixels: int = MAX_PIXELS,
    raw_pixels: bool = False,
) -> NDArray[np.uint8]:
    """Decode a picture; safe to call from many threads.

    16-bit pixels keep their upper byte (the full range of the type becomes 0..255). Alpha is dropped, as
    Pillow's `convert("RGB")` does: nothing is composited. Of several frames or pages the first is used.

    Args:
        path: the file; its content decides the format, not its suffix.
        allow_truncated: use what can be read of a truncated or damaged picture; the rest is black or grey.
        max_pixels: larger pictures are refused before they are decoded.
        raw_pixels: leave out the EXIF rotation.

    Returns:
        uint8 (H, W, 3), RGB, upright, writable.

    Raises:
        ImageError: the picture cannot be read.
    """
    with _opened(path) as image:
        info = _info(image, path)
        height, width = info.raw_size
        if height * width > max_pixels:
            raise ImageError(
                f"{path}: {width} × {height} pixels, more than --max-pixels {max_pixels}; "
                "make it smaller or raise the limit"
            )
        if info.frames > 1:
            _say_first_frame(path, info.frames)
        decoded = _decode(image, path, allow_truncated=allow_truncated)
        turned = info.orientation if _is_turned(decoded) else 1
        target = 1 if raw_pixels else info.orientation
        return np.array(_turn(_rgb(decoded, path), turned, target))


@contextmanager
def _opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    """Open a picture; whatever goes wrong inside the block becomes an ImageError."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ImageError(f"{path}: not a file, expected a picture")
        with path.open("rb") as stream, Image.open(stream, formats=_FORMATS) as image:
            yield image
    except (ImageError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"{path}: {why_unidentified(path)}") from error
    except OSError as error:
        reason = error.strerror or _tidy(str(error))
        raise ImageError(f"{path}: cannot be read ({reason})") from error
    except Exception as error:
        # Pillow's plugins let nearly any exception through on damaged files: ValueError, SyntaxError,
        # struct.error, KeyError, zlib.error …; none of them may stop a folder
        raise ImageError(
            f"{path}: damaged ({_tidy(str(error)) or type(error).__name__})"
        ) from error


def _tidy(reason: str) -> str:
    return " ".join(reason.split())[:200]


def _info(image: ImageFile.ImageFile, path: Path) -> ImageInfo:
    width, height = image.size
    if image.format == "TIFF":  # its `size` is already upright in new versions of Pillow
        tags: Any = image.tag_v2  # type: ignore[attr-defined]
        width, height = int(tags[256]), int(tags[257])
    if width < 1 or height < 1:
        raise ImageError(f"{path}: {width} × {height} pixels, expected at least 1 × 1")
    orientation = _orientation(image, path)
    raw = (height, width)
    size = (width, height) if orientation in _SIDEWAYS else raw
    animated = bool(getattr(image, "is_animated", False))
    frames = int(getattr(image, "n_frames", 1)) if animated else 1
    return ImageInfo(size, raw, orientation, frames)


def _orientation(image: ImageFile.ImageFile, path: Path) -> int:
    """EXIF orientation without decoding; damaged EXIF counts as none, as in browsers and OpenCV."""
    try:
        if image.format == "PNG" and "exif" not in image.info:
            # Pillow would decode the picture to look behind the pixels
            image.info["exif"] = late_png_exif(path)
        value = image.getexif().get(_ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, struct.error):
        return 1
    return value if isinstance(value, int) and value in _UPRIGHT else 1


def _decode(
    image: ImageFile.ImageFile, path: Path, *, allow_truncated: bool
) -> ImageFile.ImageFile:
    """Load the pixels; with `allow_truncated` those that are there."""
    try:
        if image.format == "PNG":
            check_png(path)
        image.load()
    except (ImageError, OSError, SyntaxError, ValueError, struct.error, zlib.error) as error:
        if not allow_truncated:
            raise
        return _partial(image, path, error)
    return image


def _partial(image: ImageFile.ImageFile, path: Path, error: Exception) -> ImageFile.ImageFile:
    """What a failed `load` left behind."""
    if image.format in ("JPEG", "MPO"):
        # an end marker makes libjpeg flush what it holds; without it a progressive file yields nothing
        image = Image.open(io.BytesIO(path.read_bytes() + b"\xff\xd9"), formats=_FORMATS)
    try:
        image.load()
    except (OSError, SyntaxError, ValueError, struct.error, zlib.error):
        image.tile = []  # keeps the rows that were decoded before the error
    try:
        empty = image.getbbox(alpha_only=False) is None
    except (OSError, ValueError, AssertionError):
        empty = True
    if empty:
        raise ImageError(f"{path}: damaged, and nothing of it can be read ({error})") from error
    return image


def _rgb(image: Image.Image, path: Path) -> Image.Image:
    """Convert any mode to RGB."""
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.mode == "I" and image.format in (
        "PPM",
        "PNG",
    ):  # 16 bits in 32; Pillow scales PGM's maxval
        grey = (np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.mode in ("I", "F"):
        kind = "signed or 32-bit integers" if image.mode == "I" else "floating-point numbers"
        raise ImageError(
            f"{path}: pixels are {kind}, whose range is not known; convert it to 8 or 16 bits"
        )
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _turn(image: Image.Image, found: int, wanted: int) -> Image.Image:
    """Turn a picture from one of two states, upright by `found` or as stored (1), to the `wanted` one."""
    if found == wanted:
        return image
    orientation = wanted if found == 1 else _UNDONE.get(found, found)
    return image.transpose(_UPRIGHT[orientation])


def _is_turned(image: ImageFile.ImageFile) -> bool:
    """Pillow turns TIFFs upright while it loads them, if it gets to their end, and then takes the tag away."""
    return image.format == "TIFF" and _ORIENTATION not in image.tag_v2  # type: ignore[attr-defined]


_said_first_frame = threading.Event()


def _say_first_frame(path: Path, frames: int) -> None:
    if not _said_first_frame.is_set():
        _said_first_frame.set()
        say(f"{path}: {frames} frames; of animated and multi-page pictures the first is used")
