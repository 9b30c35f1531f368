"""A model ready to find objects on pictures: pixels in, `Instances` in the picture's own frame out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from segcli.categories import Categories
from segcli.config import PredictConfig
from segcli.device import Compute
from segcli.errors import UsageError
from segcli.instances import Instances
from segcli.masks import Masks
from segcli.models import Detections, MaskRCNN
from segcli.models.inference import Detector, MakeEngine
from segcli.models.paste import paste_runs
from segcli.models.postprocess import to_original
from segcli.prediction.lanes import use_threads
from segcli.prediction.profile import NO_TIMES, StageTimes
from segcli.preprocess import PreparedPicture, collate, prepare, with_sizes


class Predictor:
    """Runs one network. `prepare` may be called from other threads, `predict` from as many as there are lanes.

    Attributes:
        categories: one per label of the instances.
        preprocess: sizes that are used.
        batch_size: pictures per forward pass.
        lanes: batches that may be predicted at the same time, on a CPU; see `with_lanes`.
        resolved: everything that changes predictions, for `config.toml`.
    """

    def __init__(
        self,
        network: MaskRCNN,
        categories: Categories,
        compute: Compute,
        *,
        config: PredictConfig,
        engine: MakeEngine | None = None,
    ) -> None:
        conventions = network.spec.conventions
        self.spec = network.spec
        self.detector = Detector(network, compute.device, compute.dtype, engine)
        self.stages: StageTimes = NO_TIMES
        self.categories = categories
        self.compute = compute
        self.preprocess = with_sizes(conventions.preprocess, config.min_size, config.max_size)
        self.postprocess = conventions.postprocess
        self.max_detections = config.max_detections or conventions.postprocess.max_detections
        self.score = config.score
        self.batch_size = config.batch_size or (1 if compute.device.type == "cpu" else 8)
        self.lanes = 1
        self._threads: int | None = None
        self.kept_labels = _labels_of(config.classes, categories)
        self.resolved: dict[str, Any] = self._describe(config)

    def with_lanes(self, lanes: int) -> None:
        """Share torch's threads, on a CPU, among so many batches at a time."""
        if lanes > 1:
            self.lanes, self._threads = lanes, max(torch.get_num_threads() // lanes, 1)
            self.resolved |= {"lanes": lanes}  # beside `threads`, which weights were laid out for

    def prepare(self, image: NDArray[np.uint8]) -> PreparedPicture:
        """Resize and normalise one picture, uint8 (H, W, 3) RGB, upright."""
        return prepare(image, self.preprocess)

    def predict(self, pictures: Sequence[PreparedPicture]) -> list[Instances]:
        """Objects of each picture, best score first, in the frame of the original picture."""
        if not pictures:
            return []
        if self._threads is not None:
            use_threads(self._threads)
        batch, sizes = collate([p.tensor for p in pictures], self.preprocess.pad_multiple)
        found = self.detector(
            batch,
            sizes,
            score=self.score,
            max_detections=self.max_detections,
            stage=self.stages.stage,
        )
        with self.stages.stage("paste", len(pictures)):
            return [
                self.instances(detections, size, picture.original_size)
                for detections, size, picture in zip(found, sizes, pictures, strict=True)
            ]

    def instances(
        self, found: Detections, size: tuple[int, int], original: tuple[int, int]
    ) -> Instances:
        """Rescale boxes, paste masks, keep the wanted classes."""
        boxes, left = to_original(found.boxes.float().cpu(), size, original, self.postprocess)
        if not left.all():
            on_device = left.to(found.labels.device)
            found = Detections(*(t[on_device] for t in vars(found).values()))
            boxes = boxes[left]
        labels = found.labels.cpu().numpy().astype(np.int32)
        runs = paste_runs(found.masks, boxes, original, self.postprocess)
        masks = Masks(runs.counts.numpy(), runs.offsets.numpy(), original)
        instances = Instances(
            image_size=original,
            boxes=boxes.numpy(),
            labels=labels,
            scores=found.scores.float().cpu().numpy(),
            masks=masks,
        )
        if self.kept_labels is None:
            return instances
        return instances[np.isin(labels, self.kept_labels)]

    def _describe(self, config: PredictConfig) -> dict[str, Any]:
        spec = self.spec
        return {
            "architecture": spec.architecture,
            "conventions": spec.conventions.to_dict(),
            "categories": self.categories.to_coco(),
            "device": self.compute.device.type,
            "precision": self.compute.precision,
            "threads": torch.get_num_threads() if self.compute.device.type == "cpu" else 0,
            "torch": torch.__version__,
            "score": self.score,
            "max_detections": self.max_detections,
            "batch_size": self.batch_size,
            "classes": list(config.classes),
            "min_size": self.preprocess.min_size,
            "max_size": self.preprocess.max_size,
            "allow_truncated": config.allow_truncated,
            "max_pixels": config.max_pixels,
        }


def _labels_of(names: Sequence[str], categories: Categories) -> NDArray[np.int32] | None:
    """Labels of the class names to keep; None keeps all.

    Raises:
        UsageError: the model does not know a name.
    """
    if not names:
        return None
    table = categories.label_of_name()
    unknown = [name for name in names if name not in table]
    if unknown:
        raise UsageError(
            f"--classes: the model knows no {unknown[0]!r}; it knows {', '.join(table)}"
        )
    return np.array([table[name] for name in names], np.int32)
