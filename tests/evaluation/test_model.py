"""A model over a dataset: a stand-in that finds bright squares."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from segcli.annotations import Dataset
from segcli.categories import Categories
from segcli.data.coco import read_coco
from segcli.errors import DataError
from segcli.evaluation.model import detect, evaluate_predictor, whole_truth
from segcli.evaluation.predictions import evaluate_predictions
from segcli.instances import Instances
from segcli.masks import Masks
from segcli.prediction.reader import read_predictions


class BrightSquares:
    """Finds what is bright in red as `square`, in green as `circle`; sees a `cow` on every picture."""

    def __init__(self, names: Sequence[str] = ("circle", "cow", "square", "N/A")) -> None:
        self.categories = Categories.from_names(names)
        self.resolved: dict[str, Any] = {"max_detections": 100}
        self.batch_size = 2
        self.batches: list[int] = []

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return image

    def predict(self, pictures: Sequence[NDArray[np.uint8]]) -> list[Instances]:
        self.batches.append(len(pictures))
        return [self._find(picture) for picture in pictures]

    def _find(self, picture: NDArray[np.uint8]) -> Instances:
        size = (picture.shape[0], picture.shape[1])
        bright = np.stack([picture[..., 1] > 200, np.ones(size, bool), picture[..., 0] > 200])
        masks = Masks.from_dense(bright)
        found = Instances(
            image_size=size,
            boxes=masks.boxes(),
            labels=np.arange(3, dtype=np.int32),
            scores=np.array([0.7, 0.9, 0.8], np.float32),
            masks=masks,
        )
        return found[masks.area() > 0]


def make(folder: Path, count: int = 5) -> Path:
    """Pictures with a red square and, on every other one, a green one; a dataset of both."""
    images, annotations = [], []
    for n in range(count):
        canvas = np.zeros((60, 80, 3), np.uint8)
        boxes = [(1, 5 + n, 10, 20, 20)] + [(2, 50, 5 + n, 20, 30)] * (n % 2)
        for label, x, y, w, h in boxes:
            canvas[y : y + h, x : x + w, label - 1] = 255
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": n,
                    "category_id": label,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                }
            )
        Image.fromarray(canvas).save(folder / f"{n}.png")
        images.append({"id": n, "file_name": f"{n}.png", "height": 60, "width": 80})
    categories = [{"id": 1, "name": "square"}, {"id": 2, "name": "circle"}]
    path = folder / "truth.json"
    table = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(table))
    return path


@pytest.fixture
def truth(tmp_path: Path) -> Dataset:
    """Five pictures."""
    return read_coco(make(tmp_path))


def test_pictures_come_in_order_and_in_batches(truth: Dataset) -> None:
    """Every picture comes once, in the dataset's order, with its own objects, predicted in batches."""
    predictor = BrightSquares()
    found = list(detect(predictor, truth, batch_size=2))
    assert [picture.id for picture, _ in found] == [0, 1, 2, 3, 4]
    assert [len(instances) for _, instances in found] == [2, 3, 2, 3, 2]
    assert predictor.batches == [2, 2, 1]


def test_no_pictures(tmp_path: Path) -> None:
    """A dataset without pictures gives nothing."""
    empty = Dataset(tmp_path, None, (), Categories.from_names(["square"]))
    assert list(detect(BrightSquares(), empty, batch_size=2)) == []
    assert evaluate_predictor(BrightSquares(), empty).counts["pictures"] == 0


def test_a_perfect_model(truth: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    """Classes join by name though ids and order differ; other classes are dropped, counted and said."""
    metrics = evaluate_predictor(BrightSquares(), truth, max_dets=100)
    assert metrics.mask is not None
    assert metrics.box["AP"] == metrics.mask["AP"] == pytest.approx(1)
    assert metrics.counts["dropped_detections"] == 5
    assert metrics.counts["failed_pictures"] == 0
    said = capsys.readouterr().err
    assert "no such class: cow, N/A" in said
    assert "evaluator: pycocotools" in said
    assert "warning" not in said


def test_no_common_class_is_refused(truth: Dataset) -> None:
    """A model of other classes is refused before anything is predicted."""
    predictor = BrightSquares(["x", "y", "z"])
    with pytest.raises(DataError, match="no class in common"):
        evaluate_predictor(predictor, truth)
    assert predictor.batches == []


def test_a_model_that_gives_less_than_is_asked_for(
    truth: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    """A limit of the model below --max-dets is said: recall would suffer silently."""
    evaluate_predictor(BrightSquares(), truth, max_dets=300)
    assert "at most 100 objects per picture" in capsys.readouterr().err


@pytest.mark.parametrize("damage", [pytest.param("truncated"), pytest.param("absent")])
def test_unusable_pictures_are_misses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    """A picture that cannot be read is named and counted, and its objects count as missed."""
    path = make(tmp_path)
    file = tmp_path / "1.png"
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-60])
    else:
        file.unlink()
    truth = whole_truth(read_coco(path))
    assert len(truth.pictures) == 5
    metrics = evaluate_predictor(BrightSquares(), truth)
    assert metrics.counts["failed_pictures"] == 1
    assert metrics.counts["truth"] == 7
    assert {c.name: c.box_ap for c in metrics.per_class}["circle"] == pytest.approx(51 / 101)
    said = capsys.readouterr().err
    assert "1 of 5 pictures cannot be used" in said
    assert ("1.png: " in said) == (damage == "truncated")


def test_all_pictures_unusable(truth: Dataset) -> None:
    """Where no picture can be read there is nothing to measure."""
    for picture in truth.pictures:
        assert picture.path is not None
        picture.path.write_bytes(b"no picture")
    with pytest.raises(DataError, match="not one of its pictures can be read"):
        evaluate_predictor(BrightSquares(), truth)


def test_a_whole_dataset_stays_as_it_is(truth: Dataset) -> None:
    """Nothing is read again where nothing was left out."""
    assert whole_truth(truth) is truth


def test_raw_pixels_are_honoured(tmp_path: Path) -> None:
    """Where annotations fit only the unrotated file, the model sees it unrotated."""
    path = make(tmp_path, 1)
    with Image.open(tmp_path / "0.png") as image:
        exif = image.getexif()
        exif[0x0112] = 6
        image.save(tmp_path / "0.png", exif=exif)
    truth = read_coco(path)
    assert truth.pictures[0].raw_pixels
    assert evaluate_predictor(BrightSquares(), truth).box["AP"] == pytest.approx(1)


def test_a_model_and_its_file_agree_to_the_last_bit(truth: Dataset, tmp_path: Path) -> None:
    """Measuring a model, and measuring what it wrote, are the same."""
    predictor = BrightSquares()
    images, rows = [], []
    for picture, found in detect(predictor, truth, batch_size=2):
        images.append({"id": picture.id, "file_name": picture.file_name, "height": 60, "width": 80})
        assert found.masks is not None
        assert found.scores is not None
        for i, box in enumerate(found.boxes.astype(np.float64)):
            rows.append(
                {
                    "id": len(rows) + 1,
                    "image_id": picture.id,
                    "category_id": int(found.labels[i]) + 1,
                    "bbox": [*box[:2], *(box[2:] - box[:2])],
                    "score": float(found.scores[i]),
                    "segmentation": found.masks.coco(i),
                }
            )
    table = {"images": images, "annotations": rows, "categories": predictor.categories.to_coco()}
    path = tmp_path / "predictions.json"
    path.write_text(json.dumps(table))
    file = evaluate_predictions(truth, read_predictions(path)).to_json()
    assert evaluate_predictor(predictor, truth).to_json() == file
