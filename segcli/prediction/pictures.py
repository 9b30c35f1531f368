"""Decoding the pictures of a job, by its settings, with memory bounded."""

from __future__ import annotations

import threading
from contextlib import nullcontext

import numpy as np
from numpy.typing import NDArray

from segcli.config import PredictConfig
from segcli.errors import ImageError
from segcli.images import image_info, read_image
from segcli.prediction.loads import LARGE
from segcli.prediction.pipeline import Source

_SMALL = 65536  # bytes; no picture of so short a file is large enough to matter


class PictureReader:
    """Reads pictures for `run_batches`; may be called from several threads."""

    def __init__(self, config: PredictConfig) -> None:
        self._config = config
        self._large = threading.Lock()

    def __call__(self, source: Source) -> NDArray[np.uint8]:
        """Decode one picture: uint8 (H, W, 3) RGB, upright.

        Raises:
            ImageError: it cannot be read.
        """
        info = image_info(source.path)
        large = info.size[0] * info.size[1] > LARGE
        with self._large if large else nullcontext():
            return read_image(
                source.path,
                allow_truncated=self._config.allow_truncated,
                max_pixels=self._config.max_pixels,
                raw_pixels=source.raw_pixels,
            )

    def weigh(self, source: Source) -> int:
        """Bytes that the picture takes once it is decoded, by its header; 0 for small files and unreadable ones."""
        try:
            if source.path.stat().st_size < _SMALL:
                return 0
            height, width = image_info(source.path).size
        except (ImageError, OSError):
            return 0  # decoding says what is wrong with it
        return 3 * height * width
