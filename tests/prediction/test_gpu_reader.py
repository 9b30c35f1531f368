"""Decoding on the GPU within a job; torchvision's decoder on the CPU stands in for the GPU's."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from segcli.config import PredictConfig
from segcli.errors import UsageError
from segcli.images import read_image
from segcli.prediction.gpu_decode import GpuDecoder
from segcli.prediction.gpu_reader import GpuReader, gpu_reader, say_decode_cost
from segcli.prediction.pipeline import Source, run_batches

pytestmark = pytest.mark.filterwarnings("ignore:.*TorchCodec:DeprecationWarning")
CONFIG = PredictConfig(decode="nvjpeg", batch_size=3, max_pixels=10_000)


def decoder() -> GpuDecoder:
    def decode(batch: list[Tensor]) -> list[Tensor]:
        found: list[Tensor] = decode_jpeg(batch, mode=ImageReadMode.RGB)
        return found

    return GpuDecoder(torch.device("cpu"), decode)


@pytest.fixture
def sources(tmp_path: Path) -> list[Source]:
    """Two JPEGs, a PNG, one that is broken, one that is too large, one that is gone; and one that is turned."""
    rng = np.random.default_rng(0)
    names = ["a.jpg", "b.jpg", "c.png", "large.jpg"]
    for name in names:
        side = 120 if name == "large.jpg" else 40
        Image.fromarray(rng.integers(0, 256, (side, 50 + side, 3), np.uint8)).save(tmp_path / name)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 broken")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rng.integers(0, 256, (40, 90, 3), np.uint8)).save(
        tmp_path / "turned.jpg", exif=exif
    )
    names += ["broken.jpg", "gone.jpg", "turned.jpg"]
    return [Source(name, tmp_path / name) for name in names]


@pytest.mark.parametrize("on_device", [True, False])
def test_good_and_bad_pictures(sources: list[Source], on_device: bool) -> None:
    """Each in its place: pixels, as tensors where they may stay, or why there are none."""
    reader = GpuReader(decoder(), CONFIG, on_device=on_device)
    found = dict(zip([s.key for s in sources], reader.together(sources), strict=True))
    for name, shape in (
        ("a.jpg", (40, 90, 3)),
        ("c.png", (40, 90, 3)),
        ("turned.jpg", (90, 40, 3)),
    ):
        pixels = found[name]
        assert isinstance(pixels, Tensor if on_device else np.ndarray)
        assert tuple(pixels.shape) == shape
    assert "more than --max-pixels" in str(found["large.jpg"])
    assert all(isinstance(found[n], Exception) for n in ("broken.jpg", "gone.jpg", "large.jpg"))
    assert "on the GPU: 3, on the CPU: " in reader.summary()
    assert reader.together([]) == []


def test_in_a_job(fake: ModuleType, sources: list[Source]) -> None:
    """A predictor of the host's pictures gets arrays, batch by batch; the bad ones are rows with errors."""
    predictor = fake.FakePredictor(CONFIG)
    reader = GpuReader(decoder(), CONFIG, on_device=False)
    batches = [sources[:3], sources[3:6], sources[6:]]
    found = [o for b in run_batches(predictor, batches, read=reader, weigh=reader.weigh) for o in b]
    assert [o.source for o in found] == sources
    errors = {o.source.key for o in found if o.error is not None}
    assert errors == {"large.jpg", "broken.jpg", "gone.jpg"}
    assert predictor.batches == [3, 1]
    assert np.array_equal(reader(sources[0]), read_image(sources[0].path))


def test_its_cost_is_said(sources: list[Source], capsys: pytest.CaptureFixture[str]) -> None:
    """From a sample, of which what cannot be compared is left out."""
    say_decode_cost(decoder(), [source.path for source in sources])
    said = capsys.readouterr().err
    assert said.startswith("--decode nvjpeg on 4 pictures: pixels differ from the CPU's by 0.")
    assert said.count("\n") == 1


def test_it_needs_a_gpu() -> None:
    """One line, with the way out."""
    with pytest.raises(
        UsageError, match="needs a CUDA device, the model runs on cpu; use --decode"
    ):
        gpu_reader(None, PredictConfig(device="cpu", decode="nvjpeg"))
