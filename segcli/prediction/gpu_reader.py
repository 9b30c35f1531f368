"""Decoding on the GPU within a job: batch by batch, for predictors that take pictures from there or from the host."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from segcli.config import PredictConfig
from segcli.console import say
from segcli.device import resolve
from segcli.prediction.gpu_decode import GpuDecoder, check_decode, decode_cost
from segcli.prediction.overlapping import Overlaps
from segcli.prediction.pictures import PictureReader
from segcli.prediction.pipeline import Source

SAMPLE = 16
"""Pictures that the decoder's cost is measured on."""


class GpuReader:
    """Reads pictures for `run_batches`, a batch at a time.

    Args:
        decoder: decodes.
        config: settings of the job.
        on_device: pictures decoded on the GPU stay there, as tensors.
    """

    def __init__(self, decoder: GpuDecoder, config: PredictConfig, *, on_device: bool) -> None:
        self._decoder, self._config, self._on_device = decoder, config, on_device
        self._alone = PictureReader(config)

    def __call__(self, source: Source) -> NDArray[np.uint8]:
        """Decode one picture on the CPU."""
        return self._alone(source)

    def weigh(self, source: Source) -> int:
        """See `PictureReader.weigh`."""
        return self._alone.weigh(source)

    def together(self, sources: Sequence[Source]) -> list[NDArray[np.uint8] | Tensor | Exception]:
        """Per picture uint8 (H, W, 3) RGB, upright; or why it cannot be read."""
        found = self._decoder(
            [source.path for source in sources],
            allow_truncated=self._config.allow_truncated,
            max_pixels=self._config.max_pixels,
        )
        return [one if isinstance(one, Exception) else self._placed(one) for one in found]

    def summary(self) -> str:
        """What to say at the end of a job."""
        return self._decoder.summary()

    def _placed(self, pixels: Tensor) -> NDArray[np.uint8] | Tensor:
        if self._on_device:
            return pixels
        array: NDArray[np.uint8] = pixels.cpu().numpy()
        return array


def gpu_reader(predictor: object, config: PredictConfig) -> GpuReader:
    """What decodes a job's pictures where `config.decode` is `nvjpeg`.

    Raises:
        UsageError: the model does not run on a CUDA device.
    """
    device = resolve(config.device, config.precision).device
    check_decode(config.decode, device)
    return GpuReader(GpuDecoder(device), config, on_device=isinstance(predictor, Overlaps))


def say_decode_cost(decoder: GpuDecoder, sample: Sequence[Path]) -> None:
    """What the GPU's pixels cost, on a job's first pictures."""
    say(decode_cost(decoder, sample).line())
