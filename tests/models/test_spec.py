"""Records of models: there and back, and damaged ones."""

from __future__ import annotations

import json
from typing import Any

import pytest

from segcli.models import ARCHITECTURES, Anchors, Conventions, ModelSpec
from segcli.models.conventions import TORCHVISION_V1_COCO
from segcli.models.spec import anchors_for_boxes


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_a_spec_survives_json(architecture: str) -> None:
    """What a checkpoint stores is what was meant."""
    spec = ModelSpec(architecture, 7, anchors_for_boxes([10.0, 20.0]), TORCHVISION_V1_COCO)
    assert ModelSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_eps_is_part_of_the_record() -> None:
    """Torchvision's v1 COCO weights need 0, and the record says so."""
    assert Conventions.from_dict(TORCHVISION_V1_COCO.to_dict()).numerics.bn_eps == 0.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"schema": 99}, "schema 99", id="newer"),
        pytest.param({"classes": "many"}, "invalid literal", id="no number"),
        pytest.param({"anchor_sizes": None}, "damaged", id="no anchors"),
        pytest.param({"conventions": {"schema": 1}}, "damaged conventions", id="half conventions"),
        pytest.param({"conventions": {"schema": 7}}, "schema 7", id="newer conventions"),
    ],
)
def test_damaged_records_are_refused(change: dict[str, Any], message: str) -> None:
    """With a ValueError that says what is wrong."""
    table = ModelSpec("mask-rcnn-nano", 1, Anchors(), Conventions()).to_dict() | change
    with pytest.raises(ValueError, match=message):
        ModelSpec.from_dict(table)


@pytest.mark.parametrize(
    ("sides", "first", "last"),
    [
        pytest.param([], 32, 512, id="no boxes: the paper's"),
        pytest.param([10.0] * 50 + [40.0] * 50, 10, 160, id="small objects"),
        pytest.param([1.0, 2.0, 3.0], 6, 96, id="never below six pixels"),
        pytest.param([900.0] * 10, 900, 14400, id="large objects"),
        pytest.param([5.0] * 50 + [640.0] * 50, 20, 320, id="a wide range is cut at the small end"),
    ],
)
def test_anchors_follow_the_boxes(sides: list[float], first: int, last: int) -> None:
    """One size a level, an octave apart, from the small boxes of the data."""
    anchors = anchors_for_boxes(sides)
    assert anchors.sizes[0] == (first,)
    assert anchors.sizes[-1] == (last,)
    assert len(anchors.sizes) == 5
