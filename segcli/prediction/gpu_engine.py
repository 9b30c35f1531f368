"""Which engine runs on a GPU: the detector of fixed shapes as CUDA graphs, or the plain one."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch

from segcli.config import PredictConfig
from segcli.errors import UsageError
from segcli.models import MaskRCNN, ModelSpec
from segcli.models.inference.static_support import why_not_static
from segcli.models.roi_align.backends import interpreting
from segcli.prediction.predictor import Predictor

if TYPE_CHECKING:
    from segcli.prediction.gpu_predictor import GpuPredictor

SHAPES = 8  # batches of so many shapes keep their graphs; each costs its input's memory and the graph's own


def runs_graphs(
    spec: ModelSpec, config: PredictConfig, device: torch.device, roi_align: str
) -> tuple[bool, str]:
    """Whether CUDA graphs run, and the engine in words for the start line.

    Args:
        spec: of the network.
        config: `compile`: True asks for graphs, False for none, None leaves it to what is possible.
        device: not a CPU, unless in Triton's interpreter, where it stands for a GPU.
        roi_align: the backend that was chosen.

    Raises:
        UsageError: graphs are asked for and cannot be had.
    """
    if config.compile is False:
        return False, "torch"
    reason = _why_not_here(device, roi_align) or _why_not(spec, config)
    if reason is None:
        return True, "CUDA graphs" if device.type == "cuda" else "fixed shapes"
    if config.compile:
        raise UsageError(
            f"--compile: the model cannot run as CUDA graphs ({reason}); use --no-compile"
        )
    return False, "torch" if device.type != "cuda" else f"torch (no CUDA graphs: {reason})"


def _why_not_here(device: torch.device, roi_align: str) -> str | None:
    if device.type != "cuda" and not interpreting():
        return f"they are for CUDA, found {device.type}"
    if not find_spec("triton"):
        return "Triton is not installed"
    if device.type == "cuda" and roi_align != "triton":
        return f"they need RoIAlign in Triton, found {roi_align}"
    return None


def _why_not(spec: ModelSpec, config: PredictConfig) -> str | None:
    return "--tta looks at each picture in steps" if config.tta else why_not_static(spec)


def graphed(network: MaskRCNN, plain: Predictor) -> GpuPredictor:
    """A predictor by graphs; on a CPU, in Triton's interpreter, the same without them.

    Args:
        network: the weights.
        plain: made of them; its settings hold, and it runs pictures that do not fit the graphs' shapes.
    """
    # these bring Triton, which not every platform has
    from segcli.models.inference.graphs import BufferedDetector, GraphedDetector
    from segcli.models.inference.pipelined import Pipelined
    from segcli.models.inference.preprocess_kernel import normalised_values
    from segcli.models.inference.static import StaticDetector
    from segcli.prediction.gpu_predictor import GpuPredictor

    device, how = plain.compute.device, plain.preprocess
    detector = StaticDetector(
        network, device, plain.compute.dtype, score=plain.score, max_detections=plain.max_detections
    )
    form = GraphedDetector if device.type == "cuda" else BufferedDetector
    values = normalised_values(how.mean, how.std)
    return GpuPredictor(plain, Pipelined(form(detector, shapes=SHAPES), values), values)
