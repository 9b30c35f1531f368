"""Reading pictures: every mode and orientation, and one line for each that cannot be read."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from segcli import images
from segcli.errors import ImageError
from segcli.images import SUFFIXES, image_info, read_image

# outside pytest, segcli.images itself silences what Pillow grumbles
pytestmark = pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
ORIENTATION = 0x0112


def gradient(height: int = 12, width: int = 20) -> NDArray[np.uint8]:
    """uint8 (H, W, 3) in which every pixel differs from its mirror images."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 8, columns * 8, rows * 3 + columns * 5], -1).astype(np.uint8)


def noise(height: int = 64, width: int = 64) -> NDArray[np.uint8]:
    """uint8 (H, W, 3) that does not compress, so that cutting a file cuts pixels."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def exif_of(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif.tobytes()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_late_exif(png: bytes, exif: bytes) -> bytes:
    """A PNG whose eXIf chunk stands behind its pixels."""
    end = png.rindex(b"IEND") - 4
    return png[:end] + png_chunk(b"eXIf", exif.removeprefix(b"Exif\0\0")) + png[end:]


def encoded(array: NDArray[np.uint8], kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def _comes_out_upright(path: Path) -> bool:
    """False where the picture is refused."""
    try:
        array = read_image(path)
    except ImageError:
        return False
    with Image.open(path) as image:
        expected = ImageOps.exif_transpose(image)
    assert array.shape == (expected.height, expected.width, 3)
    assert image_info(path).size == array.shape[:2]
    return True


def test_odd_images_fail_exactly_as_the_policy_says(shared: Callable[[str], Path]) -> None:
    """Nine of the 32 real odd pictures are refused, the others come out upright, as Pillow's own transpose has them."""
    folder = shared("data/odd_images")
    unreadable = set(json.loads(shared("data/odd_images.json").read_text())["unreadable"])
    failed = {path.name for path in folder.iterdir() if not _comes_out_upright(path)}
    assert failed == unreadable


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("kind", "late"),
    [
        pytest.param("PNG", False, id="png"),
        pytest.param("PNG", True, id="png-exif-behind-pixels"),
        pytest.param("WEBP", False, id="webp"),
        pytest.param("JPEG", False, id="jpeg"),
        pytest.param("TIFF", False, id="tiff"),
    ],
)
def test_every_orientation_comes_out_upright(
    tmp_path: Path, kind: str, late: bool, orientation: int
) -> None:
    """Upright pixels equal Pillow's exif_transpose; raw pixels equal the file's own; the header tells both sizes."""
    stored = gradient()
    options = {"lossless": True} if kind == "WEBP" else {}
    exif = exif_of(orientation)
    data = encoded(stored, kind, **options, **({} if late else {"exif": exif}))
    data = with_late_exif(data, exif) if late else data
    path = tmp_path / "a.bin"
    path.write_bytes(data)
    plain = Image.open(io.BytesIO(encoded(stored, kind, **options)))
    pixels = np.asarray(plain.convert("RGB"))
    tagged = Image.fromarray(pixels)
    tagged.getexif()[ORIENTATION] = orientation
    expected = np.asarray(ImageOps.exif_transpose(tagged))
    np.testing.assert_array_equal(read_image(path), expected)
    np.testing.assert_array_equal(read_image(path, raw_pixels=True), pixels)
    info = image_info(path)
    assert (info.size, info.raw_size) == (expected.shape[:2], stored.shape[:2])
    assert info.orientation == orientation


def sixteen_bit() -> NDArray[np.uint16]:
    return (np.arange(256, dtype=np.uint16) * 257).reshape(8, 32)


def mode_case(name: str) -> tuple[bytes, NDArray[np.uint8]]:
    """Bytes of a picture in some mode, and the RGB that it must become."""
    rgb = gradient()
    grey = np.ascontiguousarray(rgb[..., 0])
    grey_rgb = np.repeat(grey[..., None], 3, -1)
    ramp = np.repeat(np.arange(256, dtype=np.uint8).reshape(8, 32)[..., None], 3, -1)
    alpha = np.full((*grey.shape, 1), 7, np.uint8)
    buffer = io.BytesIO()
    if name == "grey":
        return encoded(grey, "PNG"), grey_rgb
    if name == "grey-alpha":
        return encoded(np.concatenate([grey[..., None], alpha], -1), "PNG"), grey_rgb
    if name == "alpha":
        return encoded(np.concatenate([rgb, alpha], -1), "PNG"), rgb
    if name == "16-bit-png":
        Image.fromarray(sixteen_bit()).save(buffer, "PNG")
        return buffer.getvalue(), ramp
    if name == "16-bit-tiff":
        Image.fromarray(sixteen_bit()).save(buffer, "TIFF")
        return buffer.getvalue(), ramp
    if name == "16-bit-pgm":
        return b"P5 32 8 65535\n" + sixteen_bit().astype(">u2").tobytes(), ramp
    if name == "palette-transparency":
        palette = Image.fromarray(rgb).quantize(32)
        palette.save(buffer, "PNG", transparency=bytes(range(32)))
        return buffer.getvalue(), np.asarray(palette.convert("RGB"))
    if name == "bilevel":
        Image.fromarray(grey > 40).save(buffer, "PNG")
        return buffer.getvalue(), np.where(grey_rgb > 40, 255, 0).astype(np.uint8)
    cmyk = Image.merge(
        "CMYK", [Image.fromarray(np.ascontiguousarray(c)) for c in (*rgb.transpose(2, 0, 1), grey)]
    )
    cmyk.save(buffer, "TIFF")
    c, k = rgb.astype(int), grey_rgb.astype(int)
    return buffer.getvalue(), ((255 - c) * (255 - k) / 255).round().astype(np.uint8)


@pytest.mark.parametrize(
    "name",
    [
        "grey",
        "grey-alpha",
        "alpha",
        "16-bit-png",
        "16-bit-tiff",
        "16-bit-pgm",
        "palette-transparency",
        "bilevel",
        "cmyk",
    ],
)
def test_modes_become_rgb(tmp_path: Path, name: str) -> None:
    """Each mode becomes the RGB worked out by hand, whatever the file's suffix says; the array may be written to."""
    data, expected = mode_case(name)
    path = tmp_path / "named.jpg"
    path.write_bytes(data)
    array = read_image(path)
    assert (array.dtype, array.flags.writeable, array.flags.c_contiguous) == (np.uint8, True, True)
    np.testing.assert_allclose(
        array.astype(int), expected.astype(int), atol=1 if name == "cmyk" else 0
    )


def test_too_many_pixels_are_refused_from_the_header(tmp_path: Path) -> None:
    """The limit is checked before decoding: a file that holds only a header is refused for its size."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b"x"))
    with pytest.raises(ImageError, match=r"60000 × 60000 pixels, more than --max-pixels 300000000"):
        read_image(path)
    small = tmp_path / "small.png"
    small.write_bytes(encoded(gradient(10, 10), "PNG"))
    assert read_image(small, max_pixels=100).shape == (10, 10, 3)
    with pytest.raises(ImageError, match="more than --max-pixels 99"):
        read_image(small, max_pixels=99)


def test_first_frame_is_used_and_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of animated and multi-page files the first frame is read; this is said once for a whole run."""
    monkeypatch.setattr(images, "_said_first_frame", type(images._said_first_frame)())
    frames = [Image.new("RGB", (8, 6), color) for color in ("red", "lime", "blue")]
    for name in ("a.gif", "b.tif", "c.webp", "d.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert image_info(tmp_path / name).frames == 3
        array = read_image(tmp_path / name)
        assert np.abs(array.astype(int) - (255, 0, 0)).max() < 6
    assert capsys.readouterr().err.count("3 frames") == 1


def test_header_of_a_cut_picture_is_readable(tmp_path: Path) -> None:
    """image_info does not look at pixels."""
    path = tmp_path / "a.png"
    path.write_bytes(encoded(noise(), "PNG")[:200])
    assert image_info(path).size == (64, 64)


def test_suffixes() -> None:
    """The suffixes are those of the design, in small letters with their dot."""
    assert {
        ".jpg",
        ".jpeg",
        ".png",
        ".webp",
        ".gif",
        ".tif",
        ".tiff",
        ".bmp",
        ".pgm",
        ".ppm",
    } == SUFFIXES
