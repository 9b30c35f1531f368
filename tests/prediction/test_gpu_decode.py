"""What is around the GPU's decoder, with torchvision's decoder on the CPU in its place."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from segcli.errors import ImageError, UsageError
from segcli.images import read_image
from segcli.prediction.gpu_decode import GpuDecoder, check_decode, decode_cost, why_not_gpu

pytestmark = pytest.mark.filterwarnings("ignore:.*TorchCodec:DeprecationWarning")
CPU = torch.device("cpu")


def by_cpu(batch: list[Tensor]) -> list[Tensor]:
    found: list[Tensor] = decode_jpeg(batch, mode=ImageReadMode.RGB)
    return found


def decoder() -> GpuDecoder:
    return GpuDecoder(CPU, by_cpu)


def smooth(height: int = 24, width: int = 40) -> Image.Image:
    """Every pixel differs from its mirror images."""
    rows, columns = np.mgrid[:height, :width]
    return Image.fromarray(
        np.stack([rows * 8, columns * 6, rows * 3 + columns * 2], -1).astype(np.uint8)
    )


def written(path: Path, picture: Image.Image, orientation: int = 1, **options: object) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(path, exif=exif, **options)
    return path


def near(found: Tensor | ImageError, path: Path) -> bool:
    assert isinstance(found, Tensor), found
    expected = torch.from_numpy(read_image(path))
    assert found.shape == expected.shape
    assert found.is_contiguous()
    return bool((found.int() - expected.int()).abs().max() <= 3)


def test_no_files() -> None:
    assert decoder()([]) == []


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright(tmp_path: Path, orientation: int) -> None:
    """By EXIF, as `read_image` turns them."""
    path = written(tmp_path / "a.jpg", smooth(), orientation)
    decode = decoder()
    assert near(decode([path])[0], path)
    assert decode.on_gpu == 1


def test_a_mixed_batch_keeps_its_order_and_is_counted(tmp_path: Path) -> None:
    """JPEGs on the GPU; others, damaged and absent files on the CPU, which reads them or says why not."""
    data = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(
        data, "JPEG"
    )
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(data.getvalue()[:-800])
    paths = [
        written(tmp_path / "a.jpg", smooth()), written(tmp_path / "b.png", smooth(9, 7)), cut,
        tmp_path / "absent.jpg", written(tmp_path / "grey.jpg", smooth().convert("L"), progressive=True),
        written(tmp_path / "cmyk.jpg", smooth().convert("CMYK")),
    ]  # fmt: skip
    decode = decoder()
    found = decode(paths)
    assert all(near(found[i], paths[i]) for i in (0, 1, 4, 5))
    assert isinstance(found[2], ImageError)
    assert isinstance(found[3], ImageError)
    assert "absent.jpg" in str(found[3])
    assert decode.on_gpu == 2
    assert decode.on_cpu == {"no JPEG": 1, "no end marker": 1, "no grey or YCbCr of 8 bits": 1}
    assert decode.summary() == (
        "decoded on the GPU: 2, on the CPU: 3 (no JPEG: 1, no end marker: 1, no grey or YCbCr of 8 bits: 1)"
    )


def test_truncated_pictures_are_read_where_allowed(tmp_path: Path) -> None:
    """On the CPU, as without this decoder."""
    path = written(tmp_path / "a.jpg", smooth(200, 200), quality=100)
    path.write_bytes(path.read_bytes()[:-2000])
    assert isinstance(decoder()([path])[0], ImageError)
    assert isinstance(decoder()([path], allow_truncated=True)[0], Tensor)


def test_too_many_pixels_are_refused(tmp_path: Path) -> None:
    """With the message of `read_image`, before anything is decoded."""
    path = written(tmp_path / "a.jpg", smooth())
    found = decoder()([path], max_pixels=100)[0]
    assert isinstance(found, ImageError)
    assert "--max-pixels 100" in str(found)


def test_one_that_the_decoder_refuses_does_not_stop_the_others(tmp_path: Path) -> None:
    """The batch is tried one by one; what still fails is read on the CPU and counted."""
    paths = [written(tmp_path / f"{i}.jpg", smooth(16, 16 + i)) for i in range(3)]

    def picky(batch: list[Tensor]) -> list[Tensor]:
        found = by_cpu(batch)
        if any(f.shape[2] == 17 for f in found):
            raise RuntimeError("nvjpeg: not supported")
        return found

    decode = GpuDecoder(CPU, picky)
    assert all(near(f, p) for f, p in zip(decode(paths), paths, strict=True))
    assert (decode.on_gpu, dict(decode.on_cpu)) == (2, {"the GPU's decoder refused it": 1})


FRAME = b"\xff\xd8\xff\xc0\x00\x11\x08\x00\x01\x00\x01\x03"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no JPEG"),
        (b"\x89PNG", "no JPEG"),
        (b"\xff\xd8\xff\xe0\x00\x10", "no end marker"),
        (b"\xff\xd8\xff\xd9", "damaged"),
        (b"\xff\xd8\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xd9", "damaged"),
        (b"\xff\xd8\xff\xe0\x00\x00" + b"\x00" * 20 + b"\xff\xd9", "damaged"),
        (b"\xff\xd8\xff\xc3\x00\x0b\x08\x00\x01\x00\x01\x01\x01\x11\x00\xff\xd9", "an unusual JPEG"),
        (b"\xff\xd8\xff\xc0\x00\x0b\x0c\x00\x01\x00\x01\x01\x01\x11\x00\xff\xd9", "no grey or YCbCr of 8 bits"),
        (b"\xff\xd8\xff\xc0\x00\x0b\x08\x00\x01\x00\x01\x01\x01\x11\x00\xff\xd9", None),
        (FRAME + b"R\x11\x00G\x11\x00B\x11\x00\xff\xd9", "no grey or YCbCr of 8 bits"),
        (FRAME + b"\x01\x11\x00\x02\x11\x00\x03\x11\x00\xff\xd9", None),
    ],
    ids=["empty", "png", "head", "nothing", "fill", "length0", "lossless", "12bit", "grey", "rgb", "ycbcr"],
)  # fmt: skip
def test_why_not(data: bytes, reason: str | None) -> None:
    """Headers of all kinds, and none that never ends."""
    assert why_not_gpu(data) == reason


def test_the_cost_is_measured(tmp_path: Path) -> None:
    """A decoder that is two steps too bright, and a file that it does not decode."""

    def bright(batch: list[Tensor]) -> list[Tensor]:
        return [f.clamp(max=250) + 2 for f in by_cpu(batch)]

    grey = Image.new("RGB", (16, 16), (90, 90, 90))
    paths = [written(tmp_path / "a.jpg", grey), written(tmp_path / "b.png", grey)]
    cost = decode_cost(GpuDecoder(CPU, bright), paths)
    assert (cost.pictures, cost.largest, cost.mean) == (1, 2, 2.0)
    assert cost.line() == (
        "--decode nvjpeg on 1 pictures: pixels differ from the CPU's by 2.000 of 255 on average, by 2 at most"
    )
    assert decode_cost(decoder(), []).pictures == 0


def test_decode_without_a_gpu_is_wrong_usage() -> None:
    """`auto` is the CPU everywhere."""
    assert not check_decode("auto", CPU)
    assert not check_decode("cpu", torch.device("cuda"))
    assert check_decode("nvjpeg", torch.device("cuda"))
    with pytest.raises(
        UsageError, match="--decode nvjpeg needs a CUDA device, the model runs on cpu"
    ):
        check_decode("nvjpeg", CPU)
    with pytest.raises(UsageError, match="expected auto, cpu or nvjpeg"):
        check_decode("gpu", CPU)
    with pytest.raises(UsageError):
        GpuDecoder(CPU)
