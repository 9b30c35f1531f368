"""The predictor of the GPU's own engine: bytes up, objects down, a few batches under way at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segcli.categories import Categories
from segcli.instances import Instances
from segcli.models import Detections
from segcli.models.inference.pipelined import Collected, Pipelined
from segcli.models.inference.preprocess_kernel import layout, preprocess
from segcli.prediction.predictor import Predictor
from segcli.prediction.profile import StageTimes
from segcli.preprocess import resized_size

SUBMIT, WAIT, PASTE, AGAIN = "upload, launch", "wait for the device", "paste", "shapes not fixed"
_LONG_QUEUE = 4  # batches; empty ones take no room on the device, and must not pile up either


@dataclass(frozen=True, eq=False)
class RawPicture:
    """A picture that is resized and normalised on the device.

    Attributes:
        pixels: uint8 (H, W, 3), RGB, upright; on the host, or on the device if it was decoded there.
        resized: (h, w) as the network shall see it.
    """

    pixels: Tensor
    resized: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return int(self.pixels.shape[0]), int(self.pixels.shape[1])


class GpuPredictor:
    """Runs a network in fixed shapes. `prepare` may be called from other threads, the rest from one.

    Attributes:
        resolved: everything that changes predictions, for `config.toml`.
        again: pictures whose candidates did not fit the fixed shapes, and that were run by the plain detector.

    Args:
        plain: the same network as it runs elsewhere; its settings hold.
        engine: runs it here.
        values: of the bytes, see `normalised_values`.
    """

    def __init__(self, plain: Predictor, engine: Pipelined, values: Tensor) -> None:
        self.plain = plain
        self.resolved: dict[str, Any] = plain.resolved
        self.again = 0
        self._engine = engine
        self._values = values.to(plain.compute.device)
        self._batches: deque[Sequence[RawPicture]] = deque()
        self._pictures = 0

    @property
    def categories(self) -> Categories:
        """Of the model."""
        return self.plain.categories

    @property
    def batch_size(self) -> int:
        """Pictures per forward pass."""
        return self.plain.batch_size

    @property
    def stages(self) -> StageTimes:
        """Where the parts' seconds go."""
        return self.plain.stages

    @stages.setter
    def stages(self, stages: StageTimes) -> None:
        self.plain.stages = stages

    @property
    def full(self) -> bool:
        """Whether `collect` has to come before the next `submit`."""
        return self._engine.full or len(self._batches) >= _LONG_QUEUE

    @property
    def under_way(self) -> int:
        """Batches submitted and not collected."""
        return len(self._batches)

    def summary(self) -> str | None:
        """What to say at the end of a job."""
        if not self.again:
            return None
        return (
            f"{self.again} of {self._pictures} pictures had more candidates than the graphs' shapes hold; the plain "
            "detector ran them again"
        )

    def prepare(self, image: NDArray[np.uint8] | Tensor) -> RawPicture:
        """Keep one picture, uint8 (H, W, 3) RGB, upright, as it is; a tensor may lie on the device."""
        if not isinstance(image, Tensor):
            writable = image if image.flags.writeable else image.copy()
            image = torch.from_numpy(np.ascontiguousarray(writable))
        size = (int(image.shape[0]), int(image.shape[1]))
        return RawPicture(image, resized_size(size, self.plain.preprocess))

    def predict(self, pictures: Sequence[RawPicture]) -> list[Instances]:
        """Objects of each picture, best score first, in the frame of the original picture."""
        self.submit(pictures)
        return self.collect()

    def submit(self, pictures: Sequence[RawPicture]) -> None:
        """Begin a batch; nothing waits for the device, but for what the first ones of a shape compile and record."""
        if pictures:
            with self.stages.stage(SUBMIT, len(pictures)):
                self._engine.submit(
                    [p.pixels for p in pictures],
                    [p.resized for p in pictures],
                    self._padded(pictures),
                )
        self._batches.append(pictures)

    def collect(self) -> list[Instances]:
        """Objects of each picture of the oldest batch under way.

        Raises:
            IndexError: none is under way.
        """
        pictures = self._batches.popleft()
        if not pictures:
            return []
        with self.stages.stage(WAIT, len(pictures)):
            found = self._engine.collect()
        self._pictures += len(pictures)
        return [self._instances(found, row, pictures) for row in range(len(pictures))]

    def discard(self) -> None:
        """Forget all batches under way."""
        while self._batches:
            if self._batches.popleft():
                self._engine.collect()

    def _instances(self, found: Collected, row: int, pictures: Sequence[RawPicture]) -> Instances:
        picture, host = pictures[row], found.host
        if host.short[row]:
            self.again += 1
            with self.stages.stage(AGAIN), _on(found.stream):
                detections = self._by_plain(picture, self._padded(pictures))
        else:
            count = int(host.counts[row])
            detections = Detections(
                host.boxes[row, :count],
                host.scores[row, :count],
                host.labels[row, :count],
                found.device.masks[row, :count],
            )
        with self.stages.stage(PASTE), _on(found.stream):
            return self.plain.instances(detections, picture.resized, picture.size)

    def _by_plain(self, picture: RawPicture, padded: tuple[int, int]) -> Detections:
        """Alone, but padded as in its batch, so that the network sees the same."""
        plain, device = self.plain, self.plain.compute.device
        batch = torch.empty((1, 3, *padded), device=device)
        batch = batch.contiguous(memory_format=torch.channels_last)
        table = layout([picture.size], [picture.resized]).to(device)
        preprocess(picture.pixels.reshape(-1).to(device), table, self._values, batch)
        return plain.detector(
            batch, [picture.resized], score=plain.score, max_detections=plain.max_detections
        )[0]

    def _padded(self, pictures: Sequence[RawPicture]) -> tuple[int, int]:
        """(H, W) of a batch; as `collate` has it."""
        multiple = self.plain.preprocess.pad_multiple
        height, width = (
            -(-max(side) // multiple) * multiple
            for side in zip(*(p.resized for p in pictures), strict=True)
        )
        return height, width


def _on(stream: torch.cuda.Stream | None) -> AbstractContextManager[object]:
    """Work of the block waits for nothing that was submitted later."""
    if stream is None:
        return nullcontext()
    return torch.cuda.stream(stream)
