"""The choice of detections and the way back to the picture's frame, by class layout and family."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection.transform import resize_boxes

from segcli.models.boxes import DeltaCoder
from segcli.models.conventions import Conventions
from segcli.models.postprocess import Found, SelectionRules, select_detections, to_original
from segcli.models.presets import PRESETS

TORCHVISION = PRESETS["torchvision-v1"]
DETECTRON2 = PRESETS["detectron2-r50"]
MMDETECTION = PRESETS["mmdetection-pytorch"]
FAMILIES = [TORCHVISION, DETECTRON2, MMDETECTION]
SIZE = (200, 300)


def _rules(conventions: Conventions, classes: int) -> SelectionRules:
    numerics = conventions.numerics
    coder = DeltaCoder(numerics, scaled=True)
    return SelectionRules(classes, numerics, conventions.postprocess, coder)


def _select(
    conventions: Conventions,
    probabilities: Tensor,
    deltas: Tensor,
    proposals: Tensor,
    **limits: float,
) -> Found:
    """Detections of probabilities (R, K + 1) whose background is last, and deltas (R, K, 4) of the classes."""
    layout, classes = conventions.numerics.class_layout, probabilities.shape[1] - 1
    logits = torch.zeros_like(probabilities)
    logits[:, layout.score_classes(classes)] = probabilities[:, :-1].log()
    logits[:, layout.background_row(classes)] = probabilities[:, -1].log()
    rows = torch.full(
        (len(deltas), layout.box_groups(classes), 4), 1e9
    )  # nobody may read the background's
    rows[:, layout.box_classes(classes)] = deltas
    given = {"score": 0.05, "most": 100} | limits
    rules = _rules(conventions, classes)
    return select_detections(logits, rows.flatten(1), proposals, SIZE, rules, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("conventions", FAMILIES)
def test_rows_belong_to_their_class_in_every_layout(conventions: Conventions) -> None:
    """Scores, deltas and labels of each class, and never the background's."""
    probabilities = torch.tensor([[0.7, 0.1, 0.2], [0.01, 0.6, 0.39], [0.01, 0.01, 0.98]])
    deltas = torch.zeros(3, 2, 4)
    deltas[1, 1, 0] = 10.0  # one width to the right, by the tenth
    proposals = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60], [100, 100, 110, 110]])
    boxes, scores, labels = _select(conventions, probabilities, deltas, proposals)
    assert labels.tolist() == [1, 2, 2]
    assert scores.tolist() == pytest.approx([0.7, 0.6, 0.1])
    assert boxes.tolist() == [[0, 0, 10, 10], [60, 50, 70, 60], [0, 0, 10, 10]]


@pytest.mark.parametrize("conventions", FAMILIES)
def test_scores_are_summed_in_the_native_order(conventions: Conventions) -> None:
    """A softmax of moved columns differs in the last bits, so columns are not moved."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 81, generator=generator) * 3
    rules = _rules(conventions, 80)
    deltas = torch.zeros(50, rules.numerics.class_layout.box_rows(80))
    proposals = torch.rand(50, 4, generator=generator) * 50
    proposals[:, 2:] += 60
    _, scores, _ = select_detections(logits, deltas, proposals, SIZE, rules, score=0.3, most=5)
    assert len(scores)
    assert set(scores.tolist()) <= set(F.softmax(logits, -1).flatten().tolist())


@pytest.mark.parametrize("conventions", FAMILIES)
def test_no_proposals_and_no_scores(conventions: Conventions) -> None:
    """Nothing in, or nothing above the threshold: nothing out, in the right shapes."""
    for count in (0, 3):
        probabilities = torch.tensor([[0.01, 0.99]]).repeat(count, 1)
        boxes, scores, labels = _select(
            conventions, probabilities, torch.zeros(count, 1, 4), torch.zeros(count, 4)
        )
        assert boxes.shape == (0, 4)
        assert scores.shape == labels.shape == (0,)
        assert labels.dtype == torch.int64


def test_a_score_of_exactly_the_threshold_is_not_kept() -> None:
    """Exclusive in all three families."""
    for conventions in FAMILIES:
        found = _select(
            conventions, torch.tensor([[0.5, 0.5]]), torch.zeros(1, 1, 4),
            torch.tensor([[0.0, 0, 9, 9]]), score=0.5,
        )  # fmt: skip
        assert len(found[0]) == 0


def test_small_detections() -> None:
    """Torchvision drops those below 0.01 pixels before NMS; the others keep even one without extent."""
    limit = torch.tensor(1e-2).item()
    proposals = torch.tensor([[0.0, 0, limit, 5], [0, 20, limit / 2, 25], [300, 50, 310, 60]])
    probabilities = torch.tensor([[0.9, 0.1]] * 3)
    kept = {
        name: len(_select(PRESETS[name], probabilities, torch.zeros(3, 1, 4), proposals)[0])
        for name in ("torchvision-v1", "detectron2-r50", "mmdetection-pytorch")
    }
    assert kept == {"torchvision-v1": 1, "detectron2-r50": 3, "mmdetection-pytorch": 3}


def test_rows_that_are_not_finite_go_in_detectron2() -> None:
    """A delta of any class takes the whole proposal with it; elsewhere only what is NaN falls through."""
    deltas = torch.zeros(2, 2, 4)
    deltas[0, 1, 0] = float("inf")
    probabilities = torch.tensor([[0.9, 0.02, 0.08], [0.8, 0.02, 0.18]])
    proposals = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60]])
    assert len(_select(DETECTRON2, probabilities, deltas, proposals)[0]) == 1
    for conventions in (TORCHVISION, MMDETECTION):
        assert len(_select(conventions, probabilities, deltas, proposals)[0]) == 2


def test_torchvisions_way_back_to_the_bit() -> None:
    """Against `resize_boxes`."""
    boxes = torch.rand(200, 4, generator=torch.Generator().manual_seed(1)) * 800
    for size, original in (
        ((800, 1066), (480, 640)),
        ((799, 1201), (333, 500)),
        ((1, 7), (3, 5000)),
    ):
        found, left = to_original(boxes, size, original, TORCHVISION.postprocess)
        assert torch.equal(found, resize_boxes(boxes, size, original))
        assert left.all()


def test_mmdetection_divides_by_its_scale_factor() -> None:
    """As `bboxes / bboxes.new_tensor(scale_factor)`; no clipping, nothing dropped."""
    boxes = torch.rand(500, 4, generator=torch.Generator().manual_seed(2)) * 800
    boxes[0] = torch.tensor([5.0, 5.0, 5.0, 900.0])
    size, original = (800, 1067), (480, 640)
    found, left = to_original(boxes, size, original, MMDETECTION.postprocess)
    factor = boxes.new_tensor([1067 / 640, 800 / 480]).repeat(2)
    assert torch.equal(found, boxes / factor)
    assert left.all()
    multiplied, _ = to_original(boxes, size, original, TORCHVISION.postprocess)
    assert not torch.equal(found, multiplied)
    assert torch.allclose(found, multiplied, rtol=1e-6)


def test_detectron2_clips_and_drops_what_is_empty_then() -> None:
    """`scale`, `clip` and `nonempty` of its Boxes, with Python's floats as scales."""
    size, original = (800, 1067), (480, 640)
    boxes = torch.tensor(
        [[0.0, 0.0, 1067.0, 800.0], [10.0, 10.0, 10.0, 30.0], [1067.0, 5.0, 1080.0, 9.0]]
    )
    found, left = to_original(boxes, size, original, DETECTRON2.postprocess)
    expected = boxes.clone()
    expected[:, 0::2] *= 640 / 1067
    expected[:, 1::2] *= 480 / 800
    assert torch.equal(found[0], expected[0].clamp(max=torch.tensor([640.0, 480, 640, 480])))
    assert left.tolist() == [True, False, False]
    assert np.all(found[:, 2].numpy() <= 640)


def test_no_boxes_come_back_as_none() -> None:
    """Empty input."""
    for conventions in FAMILIES:
        found, left = to_original(torch.zeros(0, 4), (8, 8), (9, 9), conventions.postprocess)
        assert (found.shape, left.shape) == ((0, 4), (0,))
