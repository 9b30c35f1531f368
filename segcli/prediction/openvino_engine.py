"""Parts of the network run by OpenVINO: converted from plain torch once and kept, compiled once for all sizes.

One model of dynamic sizes serves every picture. A size that is new costs a tenth of a second once; a model compiled
for the size itself is 3 % faster, but takes longer to compile and another copy of the weights. What is kept is the
converted model: compiling it at each start takes no longer than loading a compiled one, which computes other bits.

OpenVINO's own `convert_model` reports to its makers' servers and writes an identity into the user's home. Its PyTorch
frontend, used here directly, does neither.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segcli.device import dtype_of
from segcli.models.inference import Trunk, TrunkOutput
from segcli.prediction import openvino_store as store
from segcli.prediction.calibration import Calibration, quantised
from segcli.prediction.openvino_runtime import core, runtime

_FEATURES = range(4)  # outputs of `Trunk` that are features
_EXAMPLE = (1, 3, 64, 64)


class _Runner:
    """A compiled model, tensors in and tensors out.

    Results are the caller's own: a later call does not touch them. To be called from one thread.

    Args:
        compiled: OpenVINO's compiled model.
        inputs_last: numbers of the inputs (N, C, H, W) that are taken from channels-last memory without a copy.
        outputs_last: numbers of the outputs (N, C, H, W) that lie channels last.
    """

    def __init__(
        self,
        compiled: Any,
        *,
        inputs_last: Collection[int] = (),
        outputs_last: Collection[int] = (),
    ) -> None:
        self._request = compiled.create_infer_request()
        self._inputs_last, self._outputs_last = inputs_last, outputs_last
        self._outputs = [(o.element_type, o.partial_shape) for o in compiled.outputs]

    def run(self, *inputs: Tensor) -> list[Tensor]:
        """All outputs, in the module's order."""
        if len(inputs[0]) == 0:
            return [self._nothing(*port) for port in self._outputs]
        openvino = runtime()
        given = [self._given(i, x) for i, x in enumerate(inputs)]  # alive until the end
        for i, tensor in enumerate(given):
            self._request.set_input_tensor(i, tensor)
        # begun empty, each grows to its size inside: no shapes to work out here, no copy, nothing shared between calls
        fresh = [
            openvino.Tensor(kind, openvino.Shape([0] * len(shape))) for kind, shape in self._outputs
        ]
        for i, tensor in enumerate(fresh):
            self._request.set_output_tensor(i, tensor)
        self._request.start_async()
        self._request.wait()
        return [self._taken(i, tensor) for i, tensor in enumerate(fresh)]

    def _given(self, i: int, x: Tensor) -> Any:
        if i in self._inputs_last:
            x = x.permute(0, 2, 3, 1)
        x = x.detach().contiguous()
        openvino = runtime()
        if x.dtype == torch.bfloat16:  # unknown to numpy
            bits = x.view(torch.int16).numpy()
            return openvino.Tensor(bits, openvino.Shape(list(x.shape)), openvino.Type.bf16)
        return openvino.Tensor(x.numpy(), shared_memory=True)

    def _taken(self, i: int, tensor: Any) -> Tensor:
        array: NDArray[Any] = tensor.data
        if tensor.element_type == runtime().Type.bf16:
            out = torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        else:
            out = torch.from_numpy(array)
        return out.permute(0, 3, 1, 2) if i in self._outputs_last else out

    def _nothing(self, kind: Any, shape: Any) -> Tensor:
        """An output of no rows."""
        sizes = [0 if d.is_dynamic else d.get_length() for d in shape]
        dtype = torch.bfloat16 if kind == runtime().Type.bf16 else torch.float32
        return torch.zeros((0, *sizes[1:]), dtype=dtype)


class OpenVINOModule(_Runner):
    """A module with tensors of any number of rows in and tensors out, the heads for example; see `of`."""

    @classmethod
    def of(
        cls, module: nn.Module, example: Sequence[Tensor], precision: str = "fp32"
    ) -> OpenVINOModule:
        """Convert and compile a module whose inputs are free in their first dimension.

        Args:
            module: in plain torch and float32.
            example: inputs of two rows or more; floating ones are later given in the engine's type (`dtype_of`).
            precision: `fp32` or `bf16`.
        """
        model = converted(module, example, [range(1)] * len(example))
        last = [i for i, x in enumerate(example) if x.dim() == 4]
        typed = [i for i, x in enumerate(example) if x.is_floating_point()]
        arranged(model, inputs_last=last, typed_inputs=typed, dtype=dtype_of(precision))
        return cls(compiled(model, precision), inputs_last=last)

    def __call__(self, *inputs: Tensor) -> Any:
        """Results for some rows: one tensor, or a tuple of them where the module gives several."""
        found = self.run(*inputs)
        return found[0] if len(found) == 1 else tuple(found)


class OpenVINOTrunk(_Runner):
    """The trunk: float32 pictures (N, 3, H, W), best channels last, to `TrunkOutput`.

    Features are of `dtype_of` the precision and lie channels last, as RoIAlign gathers them; logits and deltas are
    float32. Equal pictures of equal padding give equal bits, whatever came before or is in the batch.
    """

    def __init__(self, compiled: Any) -> None:
        super().__init__(compiled, inputs_last=(0,), outputs_last=_FEATURES)

    def __call__(self, images: Tensor) -> TrunkOutput:
        """Features, logits and deltas.

        Raises:
            ValueError: there are no pictures, or they are not float32 (N, 3, H, W).
        """
        shape = tuple(images.shape)
        if images.dtype != torch.float32 or len(shape) != 4 or 0 in shape or shape[1] != 3:
            raise ValueError(
                f"pictures: expected float32 (N, 3, H, W), found {images.dtype} {shape}"
            )
        return Trunk.grouped(self.run(images))


def open_trunk(
    trunk: Trunk, precision: str, calibration: Calibration | None = None
) -> OpenVINOTrunk:
    """The engine of a trunk, from the cache under SEGCLI_HOME or made now.

    Args:
        trunk: not packed; becomes float32. Bfloat16 weights serve `bf16`, for the others they should not be rounded.
        precision: `fp32`, `bf16` or `int8`.
        calibration: pictures to calibrate on; needed for `int8`, and only for it.

    Raises:
        UsageError: OpenVINO or, for `int8`, NNCF is not installed, or the calibration cannot be repeated.
    """
    if (precision == "int8") != (calibration is not None):
        raise ValueError(f"precision {precision}: calibration is for int8, and int8 needs it")
    runtime()
    trunk.to_type(torch.float32).eval()
    weights = store.fingerprint(trunk)
    model = _plain(trunk, weights) if calibration is None else None
    if calibration is not None:
        model = quantised(lambda: _plain(trunk, weights), weights, calibration)
    arranged(model, inputs_last=[0], outputs_last=_FEATURES, dtype=dtype_of(precision))
    return OpenVINOTrunk(compiled(model, precision))


def _plain(trunk: Trunk, weights: str) -> Any:
    """The converted trunk, always as read from its saved form: so every start computes the same bits."""
    path = store.path_for("trunk", {"weights": weights, "openvino": runtime().__version__})
    saved = store.read(path)
    if saved is None:
        saved = store.packed(converted(trunk, [torch.zeros(_EXAMPLE)], [(0, 2, 3)]))
        store.write(path, saved)
    return store.unpacked(saved)


def converted(module: nn.Module, example: Sequence[Tensor], free: Sequence[Collection[int]]) -> Any:
    """A module in plain torch and float32 as a model of OpenVINO, which shares no memory with it.

    Args:
        module: in evaluation mode.
        example: its inputs.
        free: per input, the dimensions whose size may change from call to call.
    """
    openvino = runtime()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch ≥ 2.14 would rather export
        warnings.simplefilter("ignore", DeprecationWarning)
        # of a check in torch's group norm, and of `len`; that other sizes work is tested
        warnings.filterwarnings("ignore", "Converting a tensor to a Python boolean")
        warnings.filterwarnings("ignore", "Using len to get tensor shape")
        trace: Any = torch.jit.trace
        traced = trace(module, tuple(example), check_trace=False, strict=False)
        decoder = TorchScriptPythonDecoder(traced, shared_memory=False)  # has to outlive the call
        frontend = FrontEndManager().load_by_framework("pytorch")
        model = frontend.convert(frontend.load(decoder))
    shapes = {
        port: openvino.PartialShape([-1 if i in dims else n for i, n in enumerate(x.shape)])
        for port, x, dims in zip(model.inputs, example, free, strict=True)
    }
    model.reshape(shapes)
    return model


def arranged(
    model: Any,
    *,
    inputs_last: Collection[int] = (),
    outputs_last: Collection[int] = (),
    typed_inputs: Collection[int] = (),
    dtype: torch.dtype = torch.float32,
) -> None:
    """Let a model take and give channels-last memory, which costs nothing inside it; changes the model.

    Args:
        model: of OpenVINO.
        inputs_last: numbers of inputs (N, C, H, W) that shall be channels last.
        outputs_last: numbers of outputs likewise; they are given in `dtype`.
        typed_inputs: numbers of inputs that are taken in `dtype`.
        dtype: float32 or bfloat16.
    """
    openvino = runtime()
    from openvino.preprocess import PrePostProcessor

    kind = openvino.Type.bf16 if dtype == torch.bfloat16 else openvino.Type.f32
    outside, inside = openvino.Layout("NHWC"), openvino.Layout("NCHW")
    change = PrePostProcessor(model)
    for i in typed_inputs:
        change.input(i).tensor().set_element_type(kind)
    for i in inputs_last:
        change.input(i).tensor().set_layout(outside)
        change.input(i).model().set_layout(inside)
    for i in outputs_last:
        change.output(i).tensor().set_element_type(kind).set_layout(outside)
        change.output(i).model().set_layout(inside)
    change.build()


def compiled(model: Any, precision: str) -> Any:
    """Compile for the CPU, with torch's number of threads."""
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if dtype_of(precision) == torch.bfloat16 else "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "ENABLE_CPU_PINNING": False,  # two processes would hold on to the same cores
    }
    return core().compile_model(model, "CPU", settings)
