"""Batches as bytes in, detections out, a few under way at a time: the GPU never waits for the host.

While the GPU works on one batch, the next one's bytes are copied to it, and the host waits only for the results of the
batch before. On a CPU the same calls do the same one after another.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from segcli.models.inference.graphs import BufferedDetector
from segcli.models.inference.preprocess_kernel import layout, preprocess
from segcli.models.inference.static import StaticDetections


@dataclass(frozen=True)
class Collected:
    """What came of one batch.

    Attributes:
        host: everything that was found, in the host's memory.
        device: the same where it was found, for work that goes on there; no later batch overwrites it.
        stream: on which such work waits for nothing that was submitted later: `with torch.cuda.stream(stream)`. None
            on a CPU.
        note: what `submit` was told.
    """

    host: StaticDetections
    device: StaticDetections
    stream: torch.cuda.Stream | None
    note: Any


@dataclass
class _Slot:
    """What belongs to one batch on its way; memory is kept for the next one.

    Attributes:
        pinned: uint8, the pictures' bytes on the host.
        pixels: uint8, the same on the device.
        small: table and sizes, on the host until the batch is done.
        collected: on the host whole once `done` has happened.
        done: None on a CPU.
    """

    pinned: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.uint8))
    pixels: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.uint8))
    small: tuple[Tensor, ...] = ()
    collected: Collected | None = None
    done: torch.cuda.Event | None = None


class Pipelined:
    """Batches in, results out, in order; on a GPU a few batches are under way at once.

    Between `submit` and `collect` nothing waits for the device. On a CPU `submit` does all the work.

    Args:
        detector: what runs, graphed or not.
        values: see `normalised_values`.
        depth: most batches under way.
    """

    def __init__(
        self,
        detector: BufferedDetector,
        values: Tensor,
        *,
        depth: int = 2,
    ) -> None:
        self._detector = detector
        self._device = detector.detector.device
        self._values = values.to(self._device)
        self._idle = deque(_Slot() for _ in range(depth))
        self._busy: deque[_Slot] = deque()
        cuda = self._device.type == "cuda"
        self._copies = _stream(self._device) if cuda else None
        self._afterwards = _stream(self._device) if cuda else None

    @property
    def full(self) -> bool:
        """Whether `collect` has to come before the next `submit`."""
        return not self._idle

    def submit(
        self,
        pictures: Sequence[Tensor],
        resized: Sequence[tuple[int, int]],
        padded: tuple[int, int],
        note: Any = None,
    ) -> None:
        """Begin a batch.

        Args:
            pictures: at least one, each uint8 (H, W, 3), RGB, on the CPU or, decoded there, on the device; those on the
                CPU may be changed after this returns.
            resized: (h, w) of each as the network shall see it.
            padded: (H, W) of the batch.
            note: is given back with the results.

        Raises:
            RuntimeError: too many batches are under way.
        """
        if self.full:
            raise RuntimeError(f"{len(self._busy)} batches are under way; collect one first")
        slot = self._idle.popleft()
        try:
            with torch.inference_mode(), self._on_device():
                self._begin(slot, pictures, resized, padded, note)
        except BaseException:
            self._idle.append(_Slot())  # a copy to the other's memory may still be under way
            raise
        self._busy.append(slot)

    def collect(self) -> Collected:
        """Results of the oldest batch under way; waits for it, and for nothing else.

        Raises:
            IndexError: none is under way.
        """
        slot = self._busy.popleft()
        self._idle.append(slot)
        if slot.done is not None:
            slot.done.synchronize()
        collected, slot.collected = slot.collected, None
        assert collected is not None
        return collected

    def _begin(
        self,
        slot: _Slot,
        pictures: Sequence[Tensor],
        resized: Sequence[tuple[int, int]],
        padded: tuple[int, int],
        note: Any,
    ) -> None:
        table = layout([(p.shape[0], p.shape[1]) for p in pictures], resized)
        sizes = torch.tensor(resized, dtype=torch.float32)
        pixels, table_there, sizes_there = self._upload(slot, pictures, (table, sizes))
        shape = (len(pictures), *padded)
        images, valid = self._detector.inputs(shape)
        preprocess(pixels, table_there, self._values, images)
        valid.copy_(sizes_there)
        found = self._detector.run(shape)
        self._download(slot, found, note)

    def _upload(
        self, slot: _Slot, pictures: Sequence[Tensor], small: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        """Bytes, table and sizes on the device, once the stream that computes gets there."""
        if self._copies is None:
            return torch.cat([p.reshape(-1) for p in pictures]), *small
        slot.small = tuple(t.pin_memory() for t in small)
        if any(p.is_cuda for p in pictures):
            rows = [p.to(self._device, non_blocking=True).reshape(-1) for p in pictures]
            there = [t.to(self._device, non_blocking=True) for t in slot.small]
            for row in rows:  # made on another stream
                row.record_stream(torch.cuda.current_stream())
            return torch.cat(rows), *there
        count = sum(p.numel() for p in pictures)
        if len(slot.pinned) < count:
            slot.pinned = torch.empty(count, dtype=torch.uint8, pin_memory=True)
            slot.pixels = torch.empty(count, dtype=torch.uint8, device=self._device)
            slot.pixels.record_stream(self._copies)
            self._copies.wait_stream(torch.cuda.current_stream())  # the memory may still be in use
        torch.cat([p.reshape(-1) for p in pictures], out=slot.pinned[:count])
        compute = torch.cuda.current_stream()
        with torch.cuda.stream(self._copies):
            slot.pixels[:count].copy_(slot.pinned[:count], non_blocking=True)
            there = [t.to(self._device, non_blocking=True) for t in slot.small]
        for tensor in there:
            tensor.record_stream(compute)
        compute.wait_stream(self._copies)
        return slot.pixels, *there

    def _download(self, slot: _Slot, found: StaticDetections, note: Any) -> None:
        device = StaticDetections(*(t.clone() for t in found))
        if self._afterwards is None:
            slot.collected = Collected(device, device, None, note)
            return
        host = [torch.empty(t.shape, dtype=t.dtype, pin_memory=True) for t in device]
        for target, source in zip(host, device, strict=True):
            target.copy_(source, non_blocking=True)
            source.record_stream(self._afterwards)
        slot.collected = Collected(StaticDetections(*host), device, self._afterwards, note)
        slot.done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        slot.done.record()

    def _on_device(self) -> contextlib.AbstractContextManager[object]:
        if self._device.type == "cuda":
            return torch.cuda.device(self._device)
        return contextlib.nullcontext()


def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
