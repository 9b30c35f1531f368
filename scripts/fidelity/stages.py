"""One picture through our network, stage by stage, and how far each stage is from what was recorded."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from fidelity.matching import apart, match_boxes, match_detections, worst_mask
from fidelity.recorded import Config, Record
from segcli.categories import Categories
from segcli.config import PredictConfig
from segcli.device import resolve
from segcli.images import read_image
from segcli.instances import Instances
from segcli.masks import Masks
from segcli.models import Detections, MaskRCNN
from segcli.models.inference import Trunk, TrunkOutput
from segcli.prediction.predictor import Predictor
from segcli.preprocess import PreparedPicture, collate

_FEATURES, _RPN = 2e-5, 3e-5  # of a tensor's largest value


@dataclass(frozen=True)
class Difference:
    """How far one stage is from the record.

    Attributes:
        stage: its name.
        value: the largest difference.
        limit: the largest that is tolerated.
        unit: of both.
    """

    stage: str
    value: float
    limit: float
    unit: str

    @property
    def within(self) -> bool:
        """Whether it is tolerated; NaN is not."""
        return self.value <= self.limit


@dataclass(frozen=True, eq=False)
class Outcome:
    """What our network gives for one picture.

    Attributes:
        batch: float32 (1, 3, H, W), padded input.
        prepared: the picture before padding.
        bottom_up: C2 … C5.
        found: P2 … P5, logits, deltas.
        proposals: float32 (R, 4).
        detections: in the frame of the input.
        instances: in the frame of the picture.
    """

    batch: Tensor
    prepared: PreparedPicture
    bottom_up: list[Tensor]
    found: TrunkOutput
    proposals: Tensor
    detections: Detections
    instances: Instances


class StagedPredictor:
    """The predictor of `segcli predict`, which also keeps what its stages give.

    Args:
        network: the weights.
    """

    def __init__(self, network: MaskRCNN) -> None:
        self._seen: list[Tensor] = []
        names = Categories.from_names([str(i) for i in range(network.spec.classes)])
        self._predictor = Predictor(
            network, names, resolve("cpu", "fp32"), config=PredictConfig(), engine=self._engine
        )

    def _engine(self, trunk: Trunk, own: Any) -> Any:
        def keep(_: nn.Module, __: Any, levels: list[Tensor]) -> None:
            self._seen = levels

        trunk.body.register_forward_hook(keep)
        return own(trunk)

    def run(self, image: NDArray[np.uint8]) -> Outcome:
        """Every stage of one picture, uint8 (H, W, 3) RGB."""
        predictor, detector = self._predictor, self._predictor.detector
        prepared = predictor.prepare(image)
        batch, sizes = collate([prepared.tensor], predictor.preprocess.pad_multiple)
        found = detector.run_trunk(batch)
        proposals = detector.propose(found, (batch.shape[2], batch.shape[3]), sizes)
        limits = {"score": predictor.score, "max_detections": predictor.max_detections}
        ((boxes, scores, labels),) = detector.boxes(found, proposals, sizes, **limits)  # type: ignore[arg-type]
        (masks,) = detector.masks(found, [boxes], [labels])
        detections = Detections(boxes, scores, labels - 1, masks)
        instances = predictor.instances(detections, sizes[0], prepared.original_size)
        return Outcome(batch, prepared, self._seen, found, proposals[0], detections, instances)

    def finish(self, detections: Detections, outcome: Outcome) -> Instances:
        """Detections that another path gave for the same input, in the frame of the picture."""
        prepared = outcome.prepared
        return self._predictor.instances(detections, prepared.size, prepared.original_size)


def compare(predictor: StagedPredictor, config: Config, record: Record) -> list[Difference]:
    """Every stage of one picture against the record."""
    outcome = predictor.run(read_image(record.picture))
    return [
        *input_differences(outcome, config, record),
        *_features(outcome, record),
        *_proposals(outcome, record),
        *final_differences(outcome.instances, config, record),
    ]


def input_differences(outcome: Outcome, config: Config, record: Record) -> list[Difference]:
    """The padded input: its bits, but for torchvision, whose resizing depends on the processor."""
    batch, meta = outcome.batch, record.meta
    shape = [list(batch.shape), list(outcome.prepared.size)]
    sizes = Difference(
        "input size", float(shape != [meta["input_shape"], meta["image_hw"]]), 0, "differs"
    )
    digest = hashlib.sha256(batch.numpy().tobytes()).hexdigest()
    if config.family != "torchvision":
        return [
            sizes,
            Difference("input bits", float(digest != meta["input_sha256"]), 0, "differs"),
        ]
    h, w = outcome.prepared.size
    corners = {
        "input_tl": batch[0, :, :32, :32],
        "input_br": batch[0, :, -32:, -32:],
        "input_valid_br": batch[0, :, h - 32 : h, w - 32 : w],
    }
    largest = max(apart(ours, record.arrays[name]) for name, ours in corners.items())
    return [sizes, Difference("input", largest, 1e-5, "absolute")]


def _features(outcome: Outcome, record: Record) -> list[Difference]:
    levels = {f"c{i + 2}": level for i, level in enumerate(outcome.bottom_up)}
    levels |= {f"p{i + 2}": level for i, level in enumerate(outcome.found.features)}
    levels["p6"] = F.max_pool2d(outcome.found.features[-1], 1, 2)
    logits = {f"rpn_logits_{i}": level for i, level in enumerate(outcome.found.logits)}
    deltas = {f"rpn_deltas_{i}": level for i, level in enumerate(outcome.found.deltas)}
    groups = (
        ("C2 … C5", [n for n in levels if n[0] == "c"], levels, _FEATURES),
        ("P2 … P6", [n for n in levels if n[0] == "p"], levels, _FEATURES),
        ("RPN logits", list(logits), logits, _RPN),
        ("RPN deltas", list(deltas), deltas, _RPN),
    )
    return [
        Difference(stage, max(_level(t[n], n, record) for n in names), limit, "relative")
        for stage, names, t, limit in groups
    ]


def _level(tensor: Tensor, name: str, record: Record) -> float:
    """Largest difference of the recorded sample, and of the mean and deviation of all, by the largest value."""
    mean, deviation, largest, shape = record.meta["stats"][name]
    if list(tensor.shape) != shape:
        return float("inf")
    whole = tensor.double()
    sums = max(abs(whole.mean().item() - mean), abs(whole.std().item() - deviation))
    step = 1 if name.startswith("rpn") else max(16, tensor.shape[1] // 32)
    rows, columns = (_grid(n) for n in tensor.shape[2:])
    sample = tensor[0, ::step][:, rows][:, :, columns]
    return max(apart(sample, record.arrays[name]), sums) / float(largest)


def _grid(count: int) -> Tensor:
    return torch.from_numpy(np.unique(np.round(np.linspace(0, count - 1, 8)).astype(np.int64)))


def _proposals(outcome: Outcome, record: Record) -> list[Difference]:
    theirs = record.arrays["prop_boxes"]
    pairs = match_boxes(outcome.proposals.numpy(), theirs, 0.02)
    boxes = float(np.abs(outcome.proposals.numpy()[pairs[0]] - theirs[pairs[1]]).max(initial=0))
    return [
        Difference("proposals missing", float(len(theirs) - len(pairs[0])), 2, "of 1000"),
        Difference("proposals", boxes, 0.02, "px"),
    ]


def final_differences(ours: Instances, config: Config, record: Record) -> list[Difference]:
    """Detections: boxes, scores, labels and masks in the frame of the picture."""
    arrays = record.arrays
    assert ours.scores is not None
    assert ours.masks is not None
    labels = ours.labels.astype(np.int64) + config.first_label
    found = match_detections(
        (ours.boxes, ours.scores, labels), (arrays["boxes"], arrays["scores"], arrays["labels"])
    )
    truth = Masks.from_coco(record.meta["rle"], ours.image_size)
    masks = [worst_mask(ours.masks, truth, pair) for pair in found.pairs if pair[1] < len(truth)]
    pixels = float(max((p for p, _ in masks), default=0))
    # a mask is within its tolerance by pixels or by overlap
    bad = sum(p > 10 and overlap < 0.999 for p, overlap in masks)
    return [
        Difference("detections unmatched", float(found.unmatched), 0, "of all"),
        Difference("boxes", found.boxes, 1e-2, "px"),
        Difference("scores", found.scores, 2e-4, "absolute"),
        Difference("masks out of tolerance", float(bad), 0, "of all"),
        Difference("masks", pixels, float("inf"), "px"),
    ]
