"""Torchvision's v1 and v2 networks and ours, with the same weights, on photos: equal outputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PHOTOS = 2  # `scripts/make_fidelity.py` takes 20


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tv_maskrcnn_resnet50_fpn", "tv_maskrcnn_resnet50_fpn_v2"])
def test_equal_outputs(name: str, fidelity: Any, shared: Callable[[str], Path]) -> None:
    """Detections, boxes, scores and masks, at the sizes that published weights are used at."""
    fixtures, photos = shared("fixtures"), shared("data/coco80")
    config = fidelity.recorded.CONFIGS[name]
    weights = fidelity.recorded.native_weights(fixtures, name)
    stock = fidelity.photos.stock_network(config, weights)
    predictor = fidelity.stages.StagedPredictor(fidelity.recorded.network(fixtures, config))
    plain = fidelity.recorded.network(fixtures, config, "torchvision")
    for path in sorted(photos.rglob("*.jpg"))[:PHOTOS]:
        found = fidelity.photos.compare_photo(predictor, plain, stock, path, config.first_label)
        assert found[0].value > 1
        assert [str(d) for d in found if not d.within] == []
