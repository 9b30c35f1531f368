"""A trial of the GPU's own engine before a job relies on it: drivers, devices and Triton's compilers are many."""

from __future__ import annotations

import numpy as np

from segcli.console import warn
from segcli.errors import UsageError
from segcli.models import MaskRCNN
from segcli.prediction.gpu_engine import graphed
from segcli.prediction.pipeline import PicturePredictor
from segcli.prediction.predictor import Predictor

_BATCHES = 3  # a shape is recorded at its second batch and replayed at its third
_SIZE = (256, 320)  # pixels


def graphs_or_plain(network: MaskRCNN, plain: Predictor, *, required: bool) -> PicturePredictor:
    """The predictor by CUDA graphs, if a made-up picture goes through it; else, and this is said, the plain one.

    Args:
        network: the weights.
        plain: made of them.
        required: graphs are asked for, or were what an earlier start of the job ran.

    Raises:
        UsageError: they are required and fail.
    """
    noise = np.random.default_rng(0).integers(0, 256, (*_SIZE, 3), dtype=np.uint8)
    trial = graphed(network, plain)
    try:
        for _ in range(_BATCHES):
            trial.predict([trial.prepare(noise)])
    except Exception as error:  # whatever it is, it is said, and decides
        first = (str(error).splitlines() or [""])[0]
        reason = f"CUDA graphs failed a trial here ({type(error).__name__}: {first})"
        if required:
            raise UsageError(f"--compile: {reason}; use --no-compile") from error
        warn(f"{reason}; the plain detector runs in their place; --no-compile leaves the trial out")
        plain.resolved["compile"] = False
        return plain
    return graphed(network, plain)  # anew: nothing of the trial is counted
