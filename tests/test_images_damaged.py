"""Pictures that are damaged, cut off or no pictures: one line each, or what can be read of them."""

from __future__ import annotations

import io
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile

from segcli.errors import ImageError
from segcli.images import image_info, read_image

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


def encoded(array: NDArray[np.uint8], kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


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


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_cut_tiff_is_turned_too(tmp_path: Path, orientation: int) -> None:
    """Pillow turns only whole TIFFs; what can be read of a cut one comes out upright all the same."""
    whole, cut = tmp_path / "whole.tif", tmp_path / "cut.tif"
    data = encoded(noise(40, 60), "TIFF", exif=exif_of(orientation))
    whole.write_bytes(data)
    cut.write_bytes(data[:-3000])
    expected, found = read_image(whole), read_image(cut, allow_truncated=True)
    assert found.shape == expected.shape
    assert (found == expected).all(axis=2).mean() > 0.5
    stored = read_image(cut, allow_truncated=True, raw_pixels=True)
    np.testing.assert_array_equal(stored[:20], noise(40, 60)[:20])


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
