"""What a job's model may know of the job before it is opened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segcli.config import PredictConfig
from segcli.prediction.facts import NO_FACTS, facts_of_new
from segcli.prediction.walk import find_pictures


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three pictures of 300 × 200, one of 90 × 60, and one that is broken."""
    for name, size in (("a", (200, 300)), ("b", (200, 300)), ("c", (200, 300)), ("d", (60, 90))):
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "e.png").write_bytes(b"no picture")
    return tmp_path


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        pytest.param({}, 5, id="whole pictures"),
        pytest.param({"tta": True}, 30, id="six views each"),
        # 300 × 200 in tiles of 100 without overlap are 6, 90 × 60 is one: 19 in 4 that can be read, 5 in all
        pytest.param({"tile": 100, "overlap": 0.0}, 24, id="tiles"),
        pytest.param({"tile": 100, "overlap": 0.0, "tta": True}, 142, id="views of tiles"),
    ],
)
def test_passes_through_the_network(
    photos: Path, settings: dict[str, object], expected: int
) -> None:
    """Tiles and views count, not pictures; what cannot be read counts as the others do."""
    config = PredictConfig(**settings)  # type: ignore[arg-type]
    assert facts_of_new(find_pictures(photos), config).passes(config) == expected


def test_nothing_known(tmp_path: Path) -> None:
    """Where the number of pictures is not known, there are few; a folder of broken ones is as pictures are."""
    config = PredictConfig(tile=100)
    assert NO_FACTS.passes(config) == 0
    (tmp_path / "a.png").write_bytes(b"no picture")
    assert facts_of_new(find_pictures(tmp_path), config).passes(config) == 1


def test_the_first_files(photos: Path) -> None:
    """In the job's order, no more than there are."""
    facts = facts_of_new(find_pictures(photos), PredictConfig())
    assert [path.name for path in facts.files(2)] == ["a.png", "b.png"]
    assert len(facts.files(99)) == 5
