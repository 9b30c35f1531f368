"""Who is timed: our backend in every type and layout, and torchvision's three forms."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from segcli.bench.inputs import Inputs
from segcli.bench.peers import Pool, deterministic, module, operator, pieces_of
from segcli.bench.workloads import SAMPLING_RATIO
from segcli.models.roi_align import roi_align_pyramid_shared

Part = Literal["forward", "forward+backward", "backward"]
Layout = Literal["NHWC", "NCHW"]

PARTS: tuple[Part, ...] = ("forward", "forward+backward", "backward")
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
ATOMIC = "triton, atomic"
OPERATOR, MODULE, DETERMINISTIC = "operator", "module", "deterministic"
PEERS = {
    OPERATOR: "torchvision op",
    MODULE: "torchvision module",
    DETERMINISTIC: "torchvision det.",
}


@dataclass(frozen=True)
class Entry:
    """One contestant.

    Attributes:
        name: for the table.
        ours: whether it is segcli's.
        dtype: of the features: `fp32`, `bf16` or `fp16`.
        layout: of the features, `NHWC` being torch's channels_last. Rearranging them is inside the time.
        peer: `operator`, `module` or `deterministic`; empty for ours.
        parts: what it can do.
    """

    name: str
    ours: bool
    dtype: str
    layout: Layout
    peer: str = ""
    parts: tuple[Part, ...] = PARTS


@dataclass
class Contestant:
    """An entry with its data on the device.

    Attributes:
        entry: who it is.
        maps: features per level, (N, C, H, W), leaves that want a gradient.
        pool: features → outputs, one or several.
        holds: whose and which RoIs each output holds: index of the pooling, and rows (int64 on the CPU).
        output_gradients: of each pooling, float32 (R, C, bins, bins).
        gradients: of each output, in its type and strides; made at the first use.
        around: entered around every call.
    """

    entry: Entry
    maps: list[Tensor]
    pool: Pool
    holds: list[tuple[int, Tensor]]
    output_gradients: list[Tensor]
    around: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
    gradients: list[Tensor] = field(default_factory=list)

    def forward(self) -> list[Tensor]:
        """Without a graph, as at inference."""
        with torch.no_grad(), self.around():
            return self.pool(self.maps)

    def graph(self) -> list[Tensor]:
        """Outputs with the graph that `backward` needs."""
        with self.around():
            outputs = self.pool(self.maps)
        if not self.gradients:
            self.gradients = [
                torch.empty_like(out).copy_(self.output_gradients[k][rows])
                for out, (k, rows) in zip(outputs, self.holds, strict=True)
            ]
        return outputs

    def backward(self, outputs: list[Tensor]) -> list[Tensor]:
        """Gradients of the maps, (N, C, H, W) each."""
        with self.around():
            return list(
                torch.autograd.grad(
                    outputs, self.maps, self.gradients, allow_unused=True, materialize_grads=True
                )
            )

    def steps(self, part: Part) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
        """What comes before the clock starts, and what is timed."""
        if part == "forward":
            return lambda: None, lambda _: self.forward()
        if part == "backward":
            return self.graph, self.backward
        return lambda: None, lambda _: self.backward(self.graph())


def entries(device: torch.device, backend: str, levels: int) -> list[Entry]:
    """Who takes part on this device: ours first, then the peers."""
    training: tuple[Part, ...] = ("forward+backward", "backward")
    atomic = []
    if backend == "triton":  # also in its interpreter, where a run is rehearsed
        atomic = [Entry(ATOMIC, True, dtype, "NHWC", parts=training) for dtype in ("fp32", "bf16")]
    if device.type != "cuda":
        ours = [Entry(backend, True, dtype, "NHWC") for dtype in ("fp32", "bf16")]
        ours += [Entry(backend, True, "fp32", "NCHW"), *atomic]
        peers = [Entry(PEERS[OPERATOR], False, "fp32", "NCHW", OPERATOR)]
        if levels > 1:  # on one level the module is the operator
            peers.append(Entry(PEERS[MODULE], False, "fp32", "NCHW", MODULE))
        return ours + peers
    ours = [Entry(backend, True, dtype, "NHWC") for dtype in TYPES]
    ours += [Entry(backend, True, dtype, "NCHW") for dtype in ("fp32", "bf16")]
    return [
        *ours,
        *atomic,
        Entry(PEERS[OPERATOR], False, "fp32", "NCHW", OPERATOR),
        Entry(PEERS[MODULE], False, "bf16", "NHWC", MODULE),
        Entry(PEERS[DETERMINISTIC], False, "fp32", "NCHW", DETERMINISTIC, parts=training),
    ]


def enter(entry: Entry, inputs: Inputs, device: torch.device, backend: str) -> Contestant:
    """Put an entry's features on the device, in its type and layout."""
    memory = torch.channels_last if entry.layout == "NHWC" else torch.contiguous_format
    maps = [
        m.to(device, TYPES[entry.dtype]).contiguous(memory_format=memory).requires_grad_()
        for m in inputs.maps
    ]
    gradients = [p.gradient.to(device) for p in inputs.poolings]
    whole = [(k, torch.arange(len(p.rois))) for k, p in enumerate(inputs.poolings)]
    if entry.ours:
        pool = _ours(inputs, device, backend, deterministic=entry.name != ATOMIC)
        return Contestant(entry, maps, pool, whole, gradients)
    if entry.peer == MODULE:
        pool = module(inputs, device, autocast=entry.dtype == "bf16")
        return Contestant(entry, maps, pool, whole, gradients)
    around = deterministic if entry.peer == DETERMINISTIC else contextlib.nullcontext
    pieces = [(p.pooling, p.rows) for p in pieces_of(inputs)]
    return Contestant(entry, maps, operator(inputs, device), pieces, gradients, around)


def _ours(inputs: Inputs, device: torch.device, backend: str, *, deterministic: bool) -> Pool:
    rois = [p.rois.to(device) for p in inputs.poolings]
    sizes = [(p.bins, p.bins) for p in inputs.poolings]

    def pool(maps: list[Tensor]) -> list[Tensor]:
        return roi_align_pyramid_shared(
            maps, rois, sizes, inputs.scales, level_rule="torchvision",
            sampling_ratio=SAMPLING_RATIO, backend=backend, deterministic=deterministic,
        )  # fmt: skip

    return pool
