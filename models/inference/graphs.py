"""The detector of fixed shapes on a GPU: recorded as a CUDA graph per shape.

A forward pass is some thousand launches of a few microseconds each, which the host can not issue as fast as the GPU
does them. A graph is one launch.

The graphs themselves have never run where this was written; the buffers and the order of things have, on a CPU.
`scripts/gpu_check.sh` runs all of it on a GPU.
"""

from __future__ import annotations

from collections import Counter, OrderedDict

import torch
from torch import Tensor

from segcli.models.inference.static import StaticDetections, StaticDetector

Shape = tuple[int, int, int]
"""Pictures, and (H, W) of the padded batch."""

_WARM_UPS = 3  # Triton compiles in the first, libraries choose and allocate in the first ones


class BufferedDetector:
    """A `StaticDetector` with inputs at fixed addresses, a pair per shape.

    Args:
        detector: what runs.
        shapes: most shapes that are kept; the one that was not used for the longest time goes.
    """

    def __init__(self, detector: StaticDetector, *, shapes: int = 8) -> None:
        self.detector = detector
        self._most = shapes
        self._inputs: OrderedDict[Shape, tuple[Tensor, Tensor]] = OrderedDict()

    def inputs(self, shape: Shape) -> tuple[Tensor, Tensor]:
        """What `run` reads, to be filled: images (N, 3, H, W), channels last, and sizes float32 (N, 2), (h, w)."""
        if shape not in self._inputs:
            while len(self._inputs) >= self._most:
                self._forget(self._inputs.popitem(last=False)[0])
            self._inputs[shape] = self._new_inputs(shape)
        self._inputs.move_to_end(shape)
        return self._inputs[shape]

    def run(self, shape: Shape) -> StaticDetections:
        """Objects on the inputs of a shape. The next call, with whatever shape, may overwrite them."""
        found: StaticDetections = self.detector(*self.inputs(shape))
        return found

    def _new_inputs(self, shape: Shape) -> tuple[Tensor, Tensor]:
        N, H, W = shape
        device, dtype = self.detector.device, self.detector.dtype
        with torch.inference_mode(False):  # else they could only be filled inside of it
            images = torch.zeros((N, 3, H, W), dtype=dtype, device=device)
            sizes = torch.tensor([[H, W]] * N, dtype=torch.float32, device=device)
            return images.contiguous(memory_format=torch.channels_last), sizes

    def _forget(self, shape: Shape) -> None:
        """Nothing else belongs to a shape here."""


class GraphedDetector(BufferedDetector):
    """The same as CUDA graphs. Recording takes a few passes' time, so only a shape that comes again is recorded.

    All graphs share their memory, except for inputs: they never run at the same time. A graph gives the bits of the
    calls that it recorded, so it does not matter which calls of a shape are replayed.

    Args:
        detector: on a CUDA device.
        shapes: as in `BufferedDetector`.
        plain_runs: how many calls with a shape are made without a graph before it is recorded.

    Raises:
        ValueError: the detector is elsewhere.
    """

    def __init__(self, detector: StaticDetector, *, shapes: int = 8, plain_runs: int = 1) -> None:
        super().__init__(detector, shapes=shapes)
        if detector.device.type != "cuda":
            raise ValueError(f"a CUDA graph of a detector on {detector.device}, expected cuda")
        self._graphs: dict[Shape, tuple[torch.cuda.CUDAGraph, StaticDetections]] = {}
        self._pool = torch.cuda.graph_pool_handle()
        self._plain_runs = plain_runs
        self._runs: Counter[Shape] = Counter()

    def run(self, shape: Shape) -> StaticDetections:
        """See `BufferedDetector.run`."""
        inputs = self.inputs(shape)
        if self._runs[shape] < self._plain_runs:
            self._runs[shape] += 1
            found: StaticDetections = self.detector(*inputs)
            return found
        if shape not in self._graphs:
            self._graphs[shape] = self._recorded(*inputs)
        graph, results = self._graphs[shape]
        graph.replay()
        return results

    def _recorded(
        self, images: Tensor, sizes: Tensor
    ) -> tuple[torch.cuda.CUDAGraph, StaticDetections]:
        with torch.cuda.device(self.detector.device):
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(_WARM_UPS):
                    self.detector(images, sizes)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            # thread_local: threads that decode or pin memory meanwhile do not spoil the recording
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                found: StaticDetections = self.detector(images, sizes)
        return graph, found

    def _forget(self, shape: Shape) -> None:
        if shape in self._graphs:
            torch.cuda.synchronize(self.detector.device)  # it may be running
            del self._graphs[shape]
            if not self._graphs:  # torch refuses a pool whose last graph is gone
                self._pool = torch.cuda.graph_pool_handle()
            # where shapes take turns, recording each anew would cost more
            self._runs[shape] = -self._most
