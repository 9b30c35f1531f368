"""Reading pictures: every mode and orientation, and one line for each that cannot be read."""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

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


def five_channel_tiff() -> bytes:
    tags = [
        (256, 3, 2),
        (257, 3, 2),
        (258, 3, 8),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8),
        (277, 3, 5),
        (279, 4, 20),
    ]
    directory = b"".join(
        struct.pack(
            "<HHIHH" if kind == 3 else "<HHII", tag, kind, 1, value, *([0] if kind == 3 else [])
        )
        for tag, kind, value in tags
    )
    return (
        b"II*\0"
        + struct.pack("<I", 28)
        + bytes(20)
        + struct.pack("<H", len(tags))
        + directory
        + bytes(4)
    )


def float_tiff() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ones((3, 4), np.float32)).save(buffer, "TIFF")
    return buffer.getvalue()


def broken_crc_png() -> bytes:
    data = bytearray(encoded(noise(), "PNG"))
    start = data.index(b"IDAT")
    (length,) = struct.unpack(">I", data[start - 4 : start])
    data[start + 4 + length] ^= 0xFF
    return bytes(data)


def integer_tiff() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ones((3, 4), np.int32)).save(buffer, "TIFF")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "empty file", id="empty"),
        pytest.param(b"hello, I am text", "no picture inside", id="text"),
        pytest.param(
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
            "no picture",
            id="eps-runs-nothing",
        ),
        pytest.param(five_channel_tiff(), "TIFF of 5 channels of 8 bits", id="five-channels"),
        pytest.param(b"II*\0\xff\xff\xff\xff", "TIFF", id="tiff-without-directory"),
        pytest.param(float_tiff(), "floating-point", id="float-tiff"),
        pytest.param(integer_tiff(), "32-bit integers", id="integer-tiff"),
        pytest.param(broken_crc_png(), "checksum of PNG chunk 'IDAT'", id="png-checksum"),
        pytest.param(encoded(noise(), "PNG")[:3000], "truncated", id="truncated-png"),
        pytest.param(encoded(noise(), "JPEG")[:1500], "truncated", id="truncated-jpeg"),
        pytest.param(encoded(noise(), "WEBP")[:500], "", id="truncated-webp"),
        pytest.param(encoded(noise(), "BMP")[:3000], "", id="truncated-bmp"),
        pytest.param(encoded(noise(), "TIFF")[:5000], "", id="truncated-tiff"),
        pytest.param(encoded(noise(), "PPM")[:5000], "", id="truncated-ppm"),
    ],
)
def test_damaged_files_are_named_with_their_reason(
    tmp_path: Path, data: bytes, reason: str
) -> None:
    """A file that cannot be read gives one line: its name and why."""
    path = tmp_path / "bad.png"
    path.write_bytes(data)
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """An absent file, a folder and a pipe are refused, without waiting on the pipe."""
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    for path, reason in (
        (tmp_path / "gone.jpg", "No such file"),
        (tmp_path, "not a file"),
        (pipe, "not a file"),
    ):
        with pytest.raises(ImageError, match=reason):
            read_image(path)
        with pytest.raises(ImageError, match=reason):
            image_info(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_permission_denied(tmp_path: Path) -> None:
    """A file that may not be read is named."""
    path = tmp_path / "a.png"
    path.write_bytes(encoded(gradient(), "PNG"))
    path.chmod(0)
    with pytest.raises(ImageError, match="Permission denied"):
        read_image(path)


@pytest.mark.parametrize(
    ("kind", "options", "share"),
    [
        pytest.param("JPEG", {}, 0.6, id="jpeg"),
        pytest.param("JPEG", {"progressive": True}, 0.6, id="progressive-jpeg"),
        pytest.param("PNG", {}, 0.6, id="png"),
        pytest.param("BMP", {}, 0.6, id="bmp"),
        pytest.param("TIFF", {}, 0.6, id="tiff"),
    ],
)
def test_allow_truncated_reads_what_is_there(
    tmp_path: Path, kind: str, options: dict[str, object], share: float
) -> None:
    """With allow_truncated the pixels before the cut are those of the whole file."""
    data = encoded(noise(96, 96), kind, **options)
    whole, cut = tmp_path / "whole.jpg", tmp_path / "cut.jpg"
    whole.write_bytes(data)
    cut.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError):
        read_image(cut)
    expected, found = read_image(whole), read_image(cut, allow_truncated=True)
    assert found.shape == expected.shape
    if kind == "BMP":  # stored from the bottom up
        expected, found = expected[::-1], found[::-1]
    if "progressive" in options:  # coarse everywhere instead of fine on top
        assert (
            np.abs(found.astype(int) - expected).mean() < np.abs(128 - expected.astype(int)).mean()
        )
    else:
        np.testing.assert_array_equal(found[:40], expected[:40])


def test_allow_truncated_still_refuses_what_holds_no_pixel(tmp_path: Path) -> None:
    """A PNG cut behind its header has nothing to show."""
    data = encoded(noise(), "PNG")
    path = tmp_path / "a.png"
    path.write_bytes(data[: data.index(b"IDAT") + 6])
    with pytest.raises(ImageError):
        read_image(path, allow_truncated=True)


def test_truncation_is_per_picture_not_per_process(tmp_path: Path) -> None:
    """Threads that allow truncation do not make others allow it, and Pillow's global switch is not touched."""
    path = tmp_path / "cut.png"
    path.write_bytes(encoded(noise(), "PNG")[:6000])

    def attempt(allowed: bool) -> bool:
        try:
            read_image(path, allow_truncated=allowed)
        except ImageError:
            return False
        return True

    wanted = [number % 2 == 0 for number in range(40)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(attempt, wanted)) == wanted
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


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


@pytest.mark.parametrize(
    "exif",
    [
        pytest.param(b"Exif\0\0garbage", id="garbage"),
        pytest.param(b"Exif\0\0II*\0\x08\0\0\0\xff\xff", id="cut"),
        pytest.param(exif_of(9), id="no-such-orientation"),
    ],
)
def test_damaged_exif_counts_as_none(tmp_path: Path, exif: bytes) -> None:
    """A picture with damaged EXIF is read as it is stored."""
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(gradient(), "JPEG", exif=exif))
    assert image_info(path).orientation == 1
    assert read_image(path).shape == (12, 20, 3)


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
