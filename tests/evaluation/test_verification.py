"""Published figures beside measured ones, and when the difference is judged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from segcli.categories import Categories
from segcli.config import PredictConfig
from segcli.errors import ModelError, UsageError
from segcli.evaluation import verification
from segcli.evaluation.metrics import Curves, Metrics
from segcli.evaluation.verification import Verification, compare, verify
from segcli.instances import Instances
from segcli.masks import Masks
from segcli.published import PUBLISHED, find

NAME = "torchvision/mask-rcnn-r50-fpn-coco"  # published: 37.9 / 34.6


def metrics(
    box: float | None, mask: float | None, *, pictures: int = 5000, failed: int = 0
) -> Metrics:
    """An evaluation's outcome."""
    nothing = np.zeros(0)
    return Metrics(
        box={"AP": box}, mask=None if mask is None else {"AP": mask}, per_class=(), max_dets=100,
        evaluator=("none", "0"), counts={"pictures": pictures, "failed_pictures": failed},
        box_curves=Curves(nothing, nothing, nothing, (1, 10, 100)), mask_curves=None,
    )  # fmt: skip


def judged(found: Metrics, within: float = 0.2) -> Verification:
    return compare(find(NAME), found, "val.json", within=within)


@pytest.mark.parametrize(
    ("box", "mask", "verdict"),
    [
        pytest.param(0.379, 0.346, "agrees", id="the same"),
        pytest.param(0.381, 0.344, "agrees", id="at the limit, up and down"),
        pytest.param(0.3815, 0.346, "differs", id="box"),
        pytest.param(0.379, 0.343, "differs", id="mask"),
        pytest.param(0.3815, None, "differs", id="no masks"),
        pytest.param(None, None, "not judged", id="nothing measured"),
    ],
)
def test_judged_on_the_whole_set(box: float | None, mask: float | None, verdict: str) -> None:
    """Either AP may be off by 0.2 points, not more."""
    assert judged(metrics(box, mask)).verdict == verdict


@pytest.mark.parametrize(
    ("pictures", "failed", "words"),
    [
        pytest.param(80, 0, "measured on 80 pictures, published for the 5000", id="a part"),
        pytest.param(0, 0, "measured on 0 pictures", id="none"),
        pytest.param(5001, 0, "5001 pictures", id="more"),
        pytest.param(5000, 2, "5000 pictures, 2 of them unreadable", id="unreadable"),
    ],
)
def test_a_part_is_not_judged(pictures: int, failed: int, words: str) -> None:
    """However large the difference; the line says how many pictures there were."""
    found = judged(metrics(0.9, 0.9, pictures=pictures, failed=failed))
    assert found.verdict == "not judged"
    assert words in found.line()
    assert "not judged" in found.line()


def test_the_line_says_the_tolerance() -> None:
    """Both ways."""
    assert "is within 0.2 points" in judged(metrics(0.379, 0.346)).line()
    assert "is not within 0.05 points" in judged(metrics(0.38, 0.346), within=0.05).line()


def test_json() -> None:
    """AP in points, with the page they were published on."""
    table = json.loads(json.dumps(judged(metrics(0.38, 0.346)).to_json()))
    assert table["ap"]["box"] == pytest.approx(
        {"published": 37.9, "measured": 38.0, "difference": 0.1}
    )
    assert table["pictures"] == table["pictures_published_for"] == 5000
    assert table["verdict"] == "agrees"
    assert table["published_by"].startswith("https://")


class _RedSquares:
    """Finds what is bright in red."""

    def __init__(self) -> None:
        self.categories = Categories.from_names(["person"])
        self.resolved: dict[str, Any] = {"max_detections": 100}
        self.batch_size = 2

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return image

    def predict(self, pictures: list[NDArray[np.uint8]]) -> list[Instances]:
        return [self._find(picture) for picture in pictures]

    def _find(self, picture: NDArray[np.uint8]) -> Instances:
        masks = Masks.from_dense((picture[..., 0] > 200)[None])
        return Instances(
            image_size=(picture.shape[0], picture.shape[1]), boxes=masks.boxes(),
            labels=np.zeros(1, np.int32), scores=np.ones(1, np.float32), masks=masks,
        )  # fmt: skip


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Three pictures with a red square each."""
    images, annotations = [], []
    for n in range(3):
        canvas = np.zeros((40, 60, 3), np.uint8)
        canvas[5:25, 10:30, 0] = 255
        Image.fromarray(canvas).save(tmp_path / f"{n}.png")
        images.append({"id": n, "file_name": f"{n}.png", "height": 40, "width": 60})
        square = [[10, 5, 30, 5, 30, 25, 10, 25]]
        annotations.append({
            "id": n, "image_id": n, "category_id": 1, "bbox": [10, 5, 20, 20], "area": 400,
            "iscrowd": 0, "segmentation": square,
        })  # fmt: skip
    table = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person"}],
    }
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(table))
    return path


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[PredictConfig]:
    """A stand-in for the network; the settings with which it was opened."""
    configs: list[PredictConfig] = []

    def open_predictor(config: PredictConfig, roi_align: str) -> _RedSquares:
        configs.append(config)
        return _RedSquares()

    monkeypatch.setattr(verification, "open_predictor", open_predictor)
    return configs


def test_verify_measures(dataset: Path, opened: list[PredictConfig]) -> None:
    """With the named weights and 100 objects per picture; perfect here, so far above the published."""
    found = verify(NAME, dataset, PredictConfig(precision="fp32"))
    assert [row.measured for row in found.rows] == pytest.approx([100.0, 100.0])
    assert found.pictures == 3
    assert found.verdict == "not judged"
    assert (opened[0].model, opened[0].max_detections) == (NAME, 100)


def test_limit_takes_the_first(dataset: Path, opened: list[PredictConfig]) -> None:
    """More than there are is all there are."""
    assert verify(NAME, dataset, PredictConfig(), limit=2).pictures == 2
    assert verify(NAME, dataset, PredictConfig(), limit=9).pictures == 3


def test_the_whole_set_is_judged(
    dataset: Path, opened: list[PredictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many pictures as were published for: now the difference counts."""
    monkeypatch.setitem(verification.WHOLE, "COCO", 3)
    assert verify(NAME, dataset, PredictConfig()).verdict == "differs"
    monkeypatch.setitem(PUBLISHED, NAME, replace(find(NAME), box_ap=1.0, mask_ap=0.999))
    assert verify(NAME, dataset, PredictConfig()).verdict == "agrees"
    assert verify(NAME, dataset, PredictConfig(), limit=2).verdict == "not judged"


def test_what_cannot_be_verified(dataset: Path, opened: list[PredictConfig]) -> None:
    """Refused before anything is loaded."""
    with pytest.raises(ModelError, match="C4"):
        verify("detectron2/mask-rcnn-r50-c4-1x", dataset, PredictConfig())
    with pytest.raises(UsageError, match="nearest"):
        verify("detectron2/mask-rcnn-r50-c4-2x", dataset, PredictConfig())
    with pytest.raises(UsageError):
        verify(NAME, dataset.with_name("absent.json"), PredictConfig())
    assert opened == []
