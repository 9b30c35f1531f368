"""The trunk in 8 bits: ranges of values measured on the job's own first pictures, by NNCF."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segcli.console import say
from segcli.errors import PredictionError, UsageError
from segcli.prediction import openvino_store as store
from segcli.prediction.openvino_runtime import core, nncf, quiet

MOST_PICTURES = 8  # each takes some two seconds at 800 pixels
# The RPN's two output layers, 1 % of the work, rank and shape the proposals. The first convolution sees the raw picture
# and has few channels to make up for errors: with it in 8 bits the masks of the nano network overlap those of fp32 by
# .954 on average, without it by .990.
_EXACT = (".*head\\.(logits|deltas).*", ".*body\\.stem.*")
# With some weights OpenVINO 2026.4 makes zeros of what follows the pyramid in 8 bits (R50-FPN with an RPN head whose
# biases are zero): then the head, and at last the pyramid too, are kept in full precision
_MORE = ((".*head\\..*",), (".*head\\..*", ".*fpn\\..*"))
_LOST = 0.8  # of an output: norm of its error over its own norm; 1 is all zeros


@dataclass(frozen=True)
class Calibration:
    """Pictures that a trunk is calibrated on.

    Attributes:
        sha256: of the prepared pictures.
        pictures: how many.
        read: gives them again, each float32 (N, 3, H, W) as the trunk gets it; called only where nothing is saved.
    """

    sha256: str
    pictures: int
    read: Callable[[], Sequence[Tensor]]

    @classmethod
    def on(cls, pictures: Sequence[Tensor]) -> Calibration:
        """The first 8 of some prepared pictures, each float32 (N, 3, H, W).

        Raises:
            UsageError: there are none.
        """
        chosen = list(pictures[:MOST_PICTURES])
        if not chosen:
            raise UsageError("--precision int8: found no picture that can be read to calibrate on")
        return cls(digest(chosen), len(chosen), lambda: chosen)

    @classmethod
    def again(cls, record: Mapping[str, Any], read: Callable[[], Sequence[Tensor]]) -> Calibration:
        """The calibration of a job that goes on.

        Args:
            record: what `record` gave when it began.
            read: the pictures of then; called only where the calibrated model is no longer kept.
        """
        return cls(str(record["sha256"]), int(record["pictures"]), read)

    def record(self) -> dict[str, Any]:
        """What identifies it, for `config.toml`."""
        return {"pictures": self.pictures, "sha256": self.sha256}


def digest(pictures: Sequence[Tensor]) -> str:
    """SHA-256 of sizes and values."""
    found = hashlib.sha256()
    for picture in pictures:
        found.update(str((tuple(picture.shape), picture.dtype)).encode())
        found.update(picture.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def quantised(plain: Callable[[], Any], weights: str, calibration: Calibration) -> Any:
    """The model in 8 bits: as saved by an earlier start, else calibrated now and saved.

    Args:
        plain: makes the model of OpenVINO, inputs (N, 3, H, W); called where nothing is saved.
        weights: what identifies it.
        calibration: its pictures.

    Raises:
        UsageError: nothing is saved, and the pictures are not those of the job's beginning.
        PredictionError: an output is lost in 8 bits.
    """
    package = nncf()
    parts = {"weights": weights, "pictures": calibration.sha256, "nncf": package.__version__}
    path = store.path_for("int8", parts)
    saved = store.read(path)
    if saved is None:
        pictures = list(calibration.read()[: calibration.pictures])
        if digest(pictures) != calibration.sha256:
            raise UsageError(
                "--precision int8: the calibrated model is no longer in the cache, and the pictures it was calibrated"
                " on have changed; begin anew with --overwrite"
            )
        say(f"calibrating int8 on {len(pictures)} pictures; the result is kept")
        saved = store.packed(_sound(plain, pictures))
        store.write(path, saved)
    return store.unpacked(saved)


def _sound(plain: Callable[[], Any], pictures: Sequence[Tensor]) -> Any:
    """The calibrated model in which no output is lost: a backend's fault must not become empty predictions."""
    for more in ((), *_MORE):
        model = calibrated(plain(), pictures, (*_EXACT, *more))
        lost = _lost(model, plain(), pictures[0])
        if not lost:
            return model
    raise PredictionError(
        f"--precision int8: outputs {lost} of the trunk are lost in 8 bits with this model; use --precision bf16"
    )


def calibrated(model: Any, pictures: Sequence[Tensor], exact: Sequence[str] = _EXACT) -> Any:
    """Convolutions in 8 bits, ranges measured on pictures float32 (N, 3, H, W); equal pictures give equal models."""
    package = nncf()
    with quiet():
        return package.quantize(
            model,
            package.Dataset([p.contiguous().numpy() for p in pictures]),
            subset_size=len(pictures),
            # activations symmetric: faster than the other preset, and no worse
            preset=package.QuantizationPreset.PERFORMANCE,
            ignored_scope=package.IgnoredScope(patterns=list(exact), validate=False),
        )


def _lost(model: Any, plain: Any, picture: Tensor) -> list[int]:
    """Numbers of the outputs that have little to do with what they are in full precision."""
    pixels = picture.contiguous().numpy()
    both = [core().compile_model(m, "CPU")([pixels]) for m in (model, plain)]
    lost = []
    for i in range(len(plain.outputs)):
        found, wanted = (np.asarray(outputs[i], np.float64) for outputs in both)
        if not np.linalg.norm(found - wanted) <= _LOST * np.linalg.norm(wanted):
            lost.append(i)
    return lost
