"""The pairing of detections on which the comparisons rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

BOXES = np.array([[0.0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 60, 60]], np.float32)
SCORES = np.array([0.9, 0.5, 0.3], np.float32)
LABELS = np.array([1, 2, 2])


def test_what_differs_a_little_is_paired(fidelity: Any) -> None:
    """In another order too; the largest differences are told."""
    order = [2, 0, 1]
    ours = (BOXES[order] + np.float32(0.005), SCORES[order] + np.float32(1e-4), LABELS[order])
    found = fidelity.matching.match_detections(ours, (BOXES, SCORES, LABELS))
    assert sorted(found.pairs) == [(0, 2), (1, 0), (2, 1)]
    assert found.unmatched == 0
    assert found.boxes == pytest.approx(0.005, rel=1e-2)
    assert found.scores == pytest.approx(1e-4, rel=1e-2)


@pytest.mark.parametrize("change", ["box", "score", "label", "missing", "more"])
def test_what_differs_is_not(fidelity: Any, change: str) -> None:
    """A box of 0.02 px, a score of 1e-3, another label, one that is missing or one too many."""
    boxes, scores, labels = BOXES.copy(), SCORES.copy(), LABELS.copy()
    if change == "box":
        boxes[0, 0] += 0.02
    elif change == "score":
        scores[0] += 1e-3
    elif change == "label":
        labels[0] = 7
    elif change == "missing":
        boxes, scores, labels = boxes[1:], scores[1:], labels[1:]
    else:
        boxes, scores, labels = (np.concatenate((v, v[:1])) for v in (boxes, scores, labels))
    found = fidelity.matching.match_detections((boxes, scores, labels), (BOXES, SCORES, LABELS))
    assert found.unmatched == {"missing": 1, "more": 1}.get(change, 2)


def test_one_at_the_threshold_may_be_missing(fidelity: Any) -> None:
    """A score within 2e-4 of 0.05."""
    ours = (
        np.concatenate((BOXES, BOXES[:1] + 70)),
        np.append(SCORES, 0.0501),
        np.append(LABELS, 3),
    )
    assert fidelity.matching.match_detections(ours, (BOXES, SCORES, LABELS)).unmatched == 0


def test_nothing_beside_nothing(fidelity: Any) -> None:
    """Empty sets are equal; one box beside none is not."""
    none = (np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))
    assert fidelity.matching.match_detections(none, none).unmatched == 0
    assert fidelity.matching.match_detections((BOXES, SCORES, LABELS), none).unmatched >= 2


def test_other_shapes_and_nan_are_out_of_tolerance(fidelity: Any) -> None:
    """Neither passes by accident."""
    assert fidelity.matching.apart(torch.zeros(2), np.zeros(3)) == float("inf")
    assert not fidelity.stages.Difference("x", float("nan"), 1.0, "px").within
