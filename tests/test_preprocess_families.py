"""The network's input against each family's own steps, written out plainly with PIL, cv2 and torch: to the bit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F

from segcli.images import read_image
from segcli.models.presets import PRESETS
from segcli.preprocess import collate, prepare, resized_size

Pixels = NDArray[np.uint8]
# odd sizes as (H, W), as stored; the last one has EXIF orientation 6
SIZES = [(480, 640), (426, 640), (333, 500), (1, 900), (5000, 300), (333, 222)]
RECORDED = {
    "d2_mask_rcnn_R_50_FPN_3x": ("detectron2-r50", "abcde"),
    "d2_mask_rcnn_X_101_32x8d_FPN_3x": ("detectron2-x101", "abc"),
    "mm_mask_rcnn_r50_fpn": ("mmdetection-pytorch", "abcde"),
    "mm_mask_rcnn_r50_caffe_fpn": ("mmdetection-caffe", "abc"),
    "tv_maskrcnn_resnet50_fpn": ("torchvision-v1", "abc"),
}
IMAGES = {
    "a": "a_640x480", "b": "b_427x640", "c": "c_500x333", "d": "d_1920x1080", "e": "e_exif6_222x333",
}  # fmt: skip


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], Path]:
    """One JPEG per size."""
    folder = tmp_path_factory.mktemp("odd")
    found = {}
    for number, size in enumerate(SIZES):
        rng = np.random.default_rng(number)
        coarse = rng.integers(0, 256, (size[0] // 8 + 2, size[1] // 8 + 2, 3), dtype=np.uint8)
        image = Image.fromarray(np.repeat(np.repeat(coarse, 8, 0), 8, 1)[: size[0], : size[1]])
        path = folder / f"{number}.jpg"
        exif = Image.Exif()
        if number == len(SIZES) - 1:
            exif[0x0112] = 6
        image.save(path, quality=95, exif=exif)
        found[size] = path
    return found


def _padded(image: Tensor) -> Tensor:
    """Zeros at the right and bottom up to a multiple of 32."""
    h, w = image.shape[1:]
    out = torch.zeros(1, 3, -(-h // 32) * 32, -(-w // 32) * 32)
    out[0, :, :h, :w] = image
    return out


def detectron2s_input(path: Path, std: list[float]) -> Tensor:
    """`read_image(path, "BGR")`, `ResizeShortestEdge(800, 1333)`, `preprocess_image`."""
    bgr = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))[:, :, ::-1]
    h, w = bgr.shape[:2]
    scale = 800.0 / min(h, w)
    new_h, new_w = (800.0, scale * w) if h < w else (scale * h, 800.0)
    if max(new_h, new_w) > 1333:
        scale = 1333.0 / max(new_h, new_w)
        new_h, new_w = new_h * scale, new_w * scale
    size = (int(new_w + 0.5), int(new_h + 0.5))
    small = np.asarray(Image.fromarray(np.ascontiguousarray(bgr)).resize(size, Image.BILINEAR))
    pixels = torch.as_tensor(small.astype("float32").transpose(2, 0, 1))
    mean = torch.tensor([103.530, 116.280, 123.675]).view(-1, 1, 1)
    return _padded((pixels - mean) / torch.tensor(std).view(-1, 1, 1))


def mmdetections_input(path: Path, mean: list[float], std: list[float], *, rgb: bool) -> Tensor:
    """`cv2.imread`, `mmcv.imrescale((1333, 800))`, `DetDataPreprocessor`."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert image is not None
    h, w = image.shape[:2]
    scale = min(1333 / max(h, w), 800 / min(h, w))
    size = (int(w * float(scale) + 0.5), int(h * float(scale) + 0.5))
    small = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    pixels = torch.from_numpy(np.ascontiguousarray(small.transpose(2, 0, 1)))
    if rgb:
        pixels = pixels[[2, 1, 0]]
    means, stds = torch.tensor(mean).view(-1, 1, 1), torch.tensor(std).view(-1, 1, 1)
    return _padded((pixels.float() - means) / stds)


def torchvisions_input(path: Path) -> Tensor:
    """`GeneralizedRCNNTransform(800, 1333)` outside of scripting, on an upright picture."""
    rgb = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    pixels = torch.from_numpy(rgb.transpose(2, 0, 1).copy()).float() / 255
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    h, w = rgb.shape[:2]
    scale = min(800 / min(h, w), 1333 / max(h, w))
    small = F.interpolate(
        ((pixels - mean) / std)[None], scale_factor=scale, mode="bilinear",
        recompute_scale_factor=True, align_corners=False,
    )  # fmt: skip
    return _padded(small[0])


def _ours(path: Path, preset: str) -> Tensor:
    preprocess = PRESETS[preset].preprocess
    prepared = prepare(read_image(path), preprocess)
    return collate([prepared.tensor], preprocess.pad_multiple)[0]


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize(
    ("preset", "std"),
    [("detectron2-r50", [1.0, 1.0, 1.0]), ("detectron2-x101", [57.375, 57.12, 58.395])],
)
def test_detectron2(
    pictures: dict[tuple[int, int], Path], size: tuple[int, int], preset: str, std: list[float]
) -> None:
    """Pillow's antialiased BILINEAR on uint8, sizes in two steps, BGR."""
    assert torch.equal(_ours(pictures[size], preset), detectron2s_input(pictures[size], std))


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize(
    ("preset", "mean", "std", "rgb"),
    [
        ("mmdetection-pytorch", [123.675, 116.28, 103.53], [58.395, 57.12, 57.375], True),
        ("mmdetection-caffe", [103.53, 116.28, 123.675], [1.0, 1.0, 1.0], False),
        ("mmdetection-x101-32x8d", [103.53, 116.28, 123.675], [57.375, 57.12, 58.395], False),
    ],
)
def test_mmdetection(
    pictures: dict[tuple[int, int], Path],
    size: tuple[int, int],
    preset: str,
    mean: list[float],
    std: list[float],
    rgb: bool,
) -> None:
    """cv2's fixed-point INTER_LINEAR on uint8, decoded by cv2, EXIF included."""
    expected = mmdetections_input(pictures[size], mean, std, rgb=rgb)
    assert torch.equal(_ours(pictures[size], preset), expected)


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("preset", ["torchvision-v1", "torchvision-v2", "segcli"])
def test_torchvision(
    pictures: dict[tuple[int, int], Path], size: tuple[int, int], preset: str
) -> None:
    """Float bilinear after mean and std, sizes rounded down."""
    assert torch.equal(_ours(pictures[size], preset), torchvisions_input(pictures[size]))


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_recorded_inputs(name: str, shared: Callable[[str], Path]) -> None:
    """The hash of the padded input; torchvision's kernel depends on the processor, so only a corner of its."""
    preset, images = RECORDED[name]
    for image in images:
        with np.load(shared(f"fixtures/{name}/{IMAGES[image]}.npz")) as record:
            meta, corner = json.loads(str(record["meta"])), record["input_tl"]
        batch = _ours(shared(f"fixtures/images/{IMAGES[image]}.jpg"), preset)
        assert list(batch.shape) == meta["input_shape"]
        if preset.startswith("torchvision"):
            assert np.abs(batch[0, :, :32, :32].numpy() - corner).max() <= 1e-5
        else:
            assert hashlib.sha256(batch.numpy().tobytes()).hexdigest() == meta["input_sha256"]


@pytest.mark.parametrize("preset", ["torchvision-v1", "detectron2-r50", "mmdetection-pytorch"])
@pytest.mark.parametrize(
    "size", [(1, 5000), (5000, 1), (1, 1), (3, 1334), (799, 800), (2000, 1999)]
)
def test_the_size_that_is_foretold_is_the_size_that_is_made(
    preset: str, size: tuple[int, int]
) -> None:
    """Also for strips that would be rounded down to nothing, and with a scale that is given."""
    preprocess = replace(PRESETS[preset].preprocess, min_size=80, max_size=133)
    image = np.zeros((*size, 3), np.uint8)
    for scale in (None, 0.01):
        prepared = prepare(image, preprocess, scale=scale)
        assert prepared.size == resized_size(size, preprocess, scale)
        assert min(prepared.size) >= 1
        assert prepared.tensor.isfinite().all()


def test_the_order_of_resizing_and_normalising_is_a_choice() -> None:
    """Floats resized first and normalised then differ in the last bits only, and both can be had."""
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    first = PRESETS["segcli"].preprocess
    before = prepare(image, first).tensor
    after = prepare(image, replace(first, normalize_first=False)).tensor
    assert torch.allclose(before, after, atol=1e-4)
    rounded = prepare(image, replace(first, size_rounding="half_up")).tensor
    assert rounded.shape == (3, 800, 1000)
    assert torch.allclose(rounded, before, atol=1e-4)


def test_swapped_channels_are_swapped() -> None:
    """BGR is RGB backwards, mean and std included."""
    image = np.random.default_rng(1).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    rgb = replace(PRESETS["segcli"].preprocess, min_size=30)
    bgr = replace(rgb, channel_order="bgr", mean=rgb.mean[::-1], std=rgb.std[::-1])
    assert torch.equal(prepare(image, bgr).tensor, prepare(image, rgb).tensor.flip(0))
