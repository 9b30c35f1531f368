"""Test-time augmentation: each picture is seen at several sizes and mirrored, and what is found is merged.

As in detectron2's `GeneralizedRCNNWithTTA`: boxes of all views go through one non-maximum suppression, then every view
gives its mask of the boxes that are left, and the masks' probabilities are averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segcli.categories import Categories
from segcli.instances import Instances
from segcli.models import Detections
from segcli.models.inference.heads import nms_by_class
from segcli.models.inference.trunk import TrunkOutput
from segcli.prediction.predictor import Predictor
from segcli.prediction.profile import StageTimes
from segcli.preprocess import PreparedPicture, collate, prepare, scale_for

SCALES = (0.8, 1.0, 1.25)
"""Times the size that the picture has without augmentation; each is seen as it is and mirrored."""
VIEWS = 2 * len(SCALES)


@dataclass(frozen=True)
class _View:
    """A picture at one size, maybe mirrored, and what the trunk finds on it."""

    found: TrunkOutput
    size: tuple[int, int]
    mirrored: bool

    def here(self, boxes: Tensor, original: tuple[int, int]) -> Tensor:
        """Boxes of the original picture, (D, 4), in this view's frame."""
        return self._turned(boxes * _ratio(original, self.size))

    def there(self, boxes: Tensor, original: tuple[int, int]) -> Tensor:
        """Boxes of this view in the original picture's frame."""
        return self._turned(boxes) * _ratio(self.size, original)

    def _turned(self, boxes: Tensor) -> Tensor:
        if not self.mirrored:
            return boxes
        x0, y0, x1, y1 = boxes.unbind(1)
        width = self.size[1]
        return torch.stack((width - x1, y0, width - x0, y1), 1)


class AugmentedPredictor:
    """A predictor that sees every picture in several views; takes the place of the one it is made of.

    Args:
        predictor: runs the views.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.resolved: dict[str, Any] = {
            **predictor.resolved,
            "tta": True,
            "tta_scales": list(SCALES),
        }

    @property
    def categories(self) -> Categories:
        """Of the model."""
        return self.predictor.categories

    @property
    def batch_size(self) -> int:
        """Pictures per batch; their views run one by one."""
        return self.predictor.batch_size

    @property
    def stages(self) -> StageTimes:
        """Where the predictor's time goes."""
        return self.predictor.stages

    @stages.setter
    def stages(self, stages: StageTimes) -> None:
        self.predictor.stages = stages

    def prepare(self, image: NDArray[np.uint8]) -> list[PreparedPicture]:
        """The picture, uint8 (H, W, 3) RGB, at each size."""
        preprocess = self.predictor.preprocess
        size = (int(image.shape[0]), int(image.shape[1]))
        usual = scale_for(size, preprocess)
        return [prepare(image, preprocess, scale=usual * scale) for scale in SCALES]

    def predict(self, pictures: Sequence[list[PreparedPicture]]) -> list[Instances]:
        """Objects of each picture, best score first."""
        return [self._predict(sizes) for sizes in pictures]

    @torch.inference_mode()
    def _predict(self, prepared: list[PreparedPicture]) -> Instances:
        predictor, original = self.predictor, prepared[0].original_size
        views, boxes, scores, labels = [], [], [], []
        for picture in prepared:
            for mirrored in (False, True):
                view, found = self._look(picture, mirrored=mirrored)
                views.append(view)
                boxes.append(view.there(found[0].cpu(), original))
                scores.append(found[1].cpu())
                labels.append(found[2].cpu())
        every = (torch.cat(boxes), torch.cat(scores), torch.cat(labels))
        kept = nms_by_class(*every, predictor.postprocess.nms_iou)[: predictor.max_detections]
        merged, score, label = (values[kept] for values in every)
        masks = self._masks(views, merged, label, original)
        # boxes are in the original's frame already: a view of the original's own size
        return predictor.instances(Detections(merged, score, label - 1, masks), original, original)

    def _look(
        self, picture: PreparedPicture, *, mirrored: bool
    ) -> tuple[_View, tuple[Tensor, Tensor, Tensor]]:
        """Boxes, scores and labels (from 1) of one view, in its frame."""
        predictor = self.predictor
        detector = predictor.detector
        tensor = picture.tensor.flip(2) if mirrored else picture.tensor
        batch, sizes = collate([tensor], predictor.preprocess.pad_multiple)
        with predictor.stages.stage("trunk"):
            found = detector.run_trunk(batch)
        with predictor.stages.stage("proposals"):
            proposals = detector.propose(found, (batch.shape[2], batch.shape[3]), sizes)
        with predictor.stages.stage("box head"):
            (boxes,) = detector.boxes(
                found,
                proposals,
                sizes,
                score=predictor.score,
                max_detections=predictor.max_detections,
            )
        return _View(found, sizes[0], mirrored), boxes

    def _masks(
        self, views: list[_View], boxes: Tensor, labels: Tensor, original: tuple[int, int]
    ) -> Tensor:
        """Mask probabilities averaged over the views: float32 (D, 28, 28)."""
        detector = self.predictor.detector
        total: Tensor | None = None
        for view in views:
            with self.predictor.stages.stage("mask head"):
                own = view.here(boxes, original).to(detector.device)
                (masks,) = detector.masks(view.found, [own], [labels.to(detector.device)])
            masks = masks.flip(2) if view.mirrored else masks
            total = masks if total is None else total + masks
        assert total is not None
        return total / len(views)


def _ratio(frame: tuple[int, int], other: tuple[int, int]) -> Tensor:
    """What boxes of one frame, (H, W), are multiplied by to be in the other; (4,)."""
    return torch.tensor([other[i] / frame[i] for i in (1, 0, 1, 0)])
