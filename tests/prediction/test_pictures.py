"""Decoding by a job's settings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segcli.config import PredictConfig
from segcli.errors import ImageError
from segcli.prediction import pictures
from segcli.prediction.pictures import PictureReader
from segcli.prediction.pipeline import Source


def test_settings_reach_the_decoder(tmp_path: Path) -> None:
    """--max-pixels and --allow-truncated decide what is read."""
    path = tmp_path / "a.jpg"
    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(path)
    assert PictureReader(PredictConfig())(Source("a", path)).shape == (64, 64, 3)
    with pytest.raises(ImageError, match="--max-pixels 100"):
        PictureReader(PredictConfig(max_pixels=100))(Source("a", path))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ImageError):
        PictureReader(PredictConfig())(Source("a", path))
    assert PictureReader(PredictConfig(allow_truncated=True))(Source("a", path)).shape[0] == 64


def test_large_pictures_are_read_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit for decoding side by side a picture is read alone, with the same result."""
    monkeypatch.setattr(pictures, "LARGE", 10)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    reader = PictureReader(PredictConfig())
    assert reader(Source("a", tmp_path / "a.png")).shape == (8, 8, 3)


def test_what_pictures_weigh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three bytes a pixel by the header; small files and those that cannot be read are not worth counting."""
    Image.new("RGB", (80, 50)).save(tmp_path / "a.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    reader = PictureReader(PredictConfig())
    assert reader.weigh(Source("a", tmp_path / "a.png")) == 0
    monkeypatch.setattr(pictures, "_SMALL", 5)
    assert reader.weigh(Source("a", tmp_path / "a.png")) == 3 * 80 * 50
    assert reader.weigh(Source("b", tmp_path / "broken.png")) == 0
    assert reader.weigh(Source("c", tmp_path / "gone.png")) == 0
