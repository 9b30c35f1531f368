"""Overlay files: names, formats, and what they take over from the picture."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from segcli.errors import OutputError
from segcli.overlay.writing import Metadata, encode_image, encode_like, metadata, overlay_name


def ramp() -> NDArray[np.uint8]:
    rows, columns = np.mgrid[:40, :60]
    return np.stack([rows * 6, columns * 4, rows + columns], -1).astype(np.uint8)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        pytest.param("a.jpg", "a.jpg", id="kept"),
        pytest.param("sub/dir/a.JPG", "sub/dir/a.JPG", id="folder-and-case-kept"),
        pytest.param("a.gif", "a.gif.png", id="gif"),
        pytest.param("a.PGM", "a.PGM.png", id="grey-only"),
        pytest.param("a", "a.png", id="no-suffix"),
        pytest.param("a.heic", "a.heic.png", id="unknown"),
    ],
)
def test_overlay_name(key: str, name: str) -> None:
    """Name and format are kept where the format can be written, else .png is added."""
    assert overlay_name(key) == name


@pytest.mark.parametrize(
    ("suffix", "kind", "tolerance"),
    [
        (".jpg", "JPEG", 6),
        (".JPEG", "JPEG", 6),
        (".png", "PNG", 0),
        (".webp", "WEBP", 12),
        (".tif", "TIFF", 0),
        (".tiff", "TIFF", 0),
        (".bmp", "BMP", 0),
        (".ppm", "PPM", 0),
    ],
)
def test_each_format_holds_the_pixels(suffix: str, kind: str, tolerance: int) -> None:
    """The bytes are of the suffix's format and give the picture back."""
    data = encode_image(ramp(), suffix)
    image = Image.open(io.BytesIO(data))
    assert image.format == kind
    difference = np.abs(np.asarray(image.convert("RGB")).astype(int) - ramp())
    assert difference.max() <= tolerance


def test_jpeg_keeps_thin_colours() -> None:
    """JPEG is written with colour at full resolution, so one-pixel lines keep their colour."""
    lines = np.zeros((32, 32, 3), np.uint8)
    lines[:, ::2, 0] = 255
    image = Image.open(io.BytesIO(encode_image(lines, ".jpg")))
    assert np.asarray(image)[:, ::2, 0].min() > 200


def test_unknown_suffix_is_refused() -> None:
    """A format that cannot be written is named with those that can."""
    with pytest.raises(OutputError, match=r"'\.gif'; expected one of \.bmp"):
        encode_image(ramp(), ".gif")


def test_too_large_for_the_format() -> None:
    """WebP ends at 16383 pixels a side."""
    with pytest.raises(OutputError, match="16400 × 1 pixels cannot be written as WEBP"):
        encode_image(np.zeros((1, 16_400, 3), np.uint8), ".webp")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_exif_is_kept_with_orientation_1(tmp_path: Path, suffix: str) -> None:
    """The picture's EXIF stays, but says that the pixels are upright; the colour profile stays."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "Maker"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    source = tmp_path / f"a{suffix}"
    Image.fromarray(ramp()).save(source, exif=exif, icc_profile=profile)
    image = Image.open(io.BytesIO(encode_like(ramp(), source, suffix)))
    kept = image.getexif()
    assert (kept[0x0112], kept[0x010F]) == (1, "Maker")
    assert image.info["icc_profile"] == profile


@pytest.mark.parametrize(
    ("data", "suffix"),
    [
        pytest.param(b"no picture", ".jpg", id="no-picture"),
        pytest.param(None, ".tif", id="tiff"),
        pytest.param(None, ".png", id="png-without-exif"),
    ],
)
def test_no_metadata_where_there_is_none(tmp_path: Path, data: bytes | None, suffix: str) -> None:
    """Files without EXIF, and those whose tags describe their own layout, give nothing."""
    source = tmp_path / f"a{suffix}"
    if data is None:
        Image.fromarray(ramp()).save(source)
    else:
        source.write_bytes(data)
    assert metadata(source) == Metadata()
    assert metadata(tmp_path / "absent.jpg") == Metadata()
