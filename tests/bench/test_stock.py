"""The stock script: torchvision's own network, its stages, what it writes, its operations."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights, maskrcnn_resnet50_fpn
from torchvision.ops.misc import FrozenBatchNorm2d

from segcli.bench.predict_inputs import quick_model, quick_pictures
from segcli.bench.predictors import Task
from segcli.bench.stock import STAGES, Stages, StockJob, build_stock
from segcli.categories import Categories
from segcli.errors import DataError, UsageError
from segcli.models.conventions import OWN, TORCHVISION_V1_COCO, Conventions
from segcli.prediction.walk import find_pictures
from segcli.zoo import LoadedModel, load_model, new_model

CPU = torch.device("cpu")
SIZES = {"min_size": 64, "max_size": 96}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return quick_model(tmp_path_factory.mktemp("weights") / "weights.safetensors")


@pytest.fixture(scope="module")
def model(weights: str) -> LoadedModel:
    return load_model(weights)


@pytest.fixture(scope="module")
def stock(weights: str, tmp_path_factory: pytest.TempPathFactory) -> StockJob:
    """The script on two pictures."""
    folder = quick_pictures(tmp_path_factory.mktemp("data") / "pictures")
    return StockJob(Task(str(folder), weights, 0.05, **SIZES), find_pictures(folder))


def with_conventions(model: LoadedModel, conventions: Conventions) -> LoadedModel:
    return replace(model, spec=replace(model.spec, conventions=conventions))


def test_it_is_what_torchvision_loads(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit the network of torchvision's own `weights=COCO_V1`, the download replaced."""
    monkeypatch.setattr(
        MaskRCNN_ResNet50_FPN_Weights, "get_state_dict", lambda *_, **__: model.state
    )
    theirs = maskrcnn_resnet50_fpn(
        weights=MaskRCNN_ResNet50_FPN_Weights.COCO_V1, box_score_thresh=0.01, **SIZES
    ).eval()
    task = Task("", "", 0.01, **SIZES)
    ours = build_stock(with_conventions(model, TORCHVISION_V1_COCO), task)
    image = torch.rand(3, 40, 60, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, found = theirs([image])[0], ours([image])[0]

    norms = [m for m in ours.modules() if isinstance(m, FrozenBatchNorm2d)]
    assert (len(norms), {m.eps for m in norms}) == (53, {0.0})
    assert not any(isinstance(m, nn.BatchNorm2d) for m in ours.modules())
    assert len(expected["scores"]) > 10
    for name in ("boxes", "labels", "scores", "masks"):
        assert torch.equal(expected[name], found[name])


def test_other_networks_are_refused(model: LoadedModel) -> None:
    """What torchvision cannot compute is named."""
    task = Task("", "", 0.05)
    with pytest.raises(UsageError, match=r"^mask-rcnn-nano: mask-rcnn-nano has no stock form"):
        build_stock(new_model("mask-rcnn-nano", Categories.from_names(["a"]), seed=0), task)
    with pytest.raises(UsageError, match=r"conventions are not torchvision's, found .*roi_aligned"):
        build_stock(with_conventions(model, OWN), task)


def test_results_and_stages(stock: StockJob, tmp_path: Path) -> None:
    """A COCO results list: every object of each picture with its box, its score and its mask at the picture's size."""
    stages = stock.run(tmp_path / "out")
    rows = json.loads((tmp_path / "out" / "results.json").read_text())

    assert tuple(stages) == STAGES
    assert all(seconds > 0 for seconds in stages.values())
    assert {row["image_id"] for row in rows} == {1, 2}
    assert [row["image_id"] for row in rows].count(1) == stock.resolved["max_detections"] == 10
    for row in rows:
        size = [96, 128] if row["image_id"] == 1 else [120, 90]
        x, y, width, height = row["bbox"]
        assert row["segmentation"]["size"] == size
        assert coco_mask.decode(row["segmentation"]).shape == tuple(size)
        assert 0 <= x <= x + width <= size[1] + 1e-3
        assert 0 <= y <= y + height <= size[0] + 1e-3
        assert 1 <= row["category_id"] <= 90
        assert 0.05 < row["score"] <= 1


def test_no_detections(stock: StockJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A threshold that nothing reaches gives an empty list."""
    monkeypatch.setattr(stock.network.roi_heads, "score_thresh", 1.0)
    stock.run(tmp_path / "out")

    assert (tmp_path / "out" / "results.json").read_text() == "[]"


def test_a_damaged_picture_is_named(
    stock: StockJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The script stops there: a comparison over other pictures would be none."""
    (tmp_path / "2.png").write_bytes(b"no picture")
    monkeypatch.setattr(stock, "_paths", [tmp_path / "2.png"])

    with pytest.raises(DataError, match=r"2\.png: cannot be read .*take it out of the folder"):
        stock.run(tmp_path / "out")


def test_pictures_are_upright(
    stock: StockJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EXIF's rotation is obeyed, as in segcli, so that both see the same picture."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    monkeypatch.setattr(stock, "_paths", [tmp_path / "a.jpg"])
    monkeypatch.setattr(stock.network.roi_heads, "score_thresh", 0.0)
    stock.run(tmp_path / "out")
    rows = json.loads((tmp_path / "out" / "results.json").read_text())

    assert rows
    assert rows[0]["segmentation"]["size"] == [60, 40]


def test_operations_of_the_trunk(stock: StockJob, tmp_path: Path) -> None:
    """As counted by hand from every convolution of backbone, pyramid and RPN head, averaged over the pictures."""
    counted: list[int] = []
    hooks = []

    def count(layer: nn.Conv2d, _inputs: tuple[Tensor, ...], out: Tensor) -> None:
        kernel = layer.kernel_size[0] * layer.kernel_size[1]
        counted.append(2 * kernel * layer.in_channels * out.numel())

    for part in (stock.network.backbone, stock.network.rpn.head):
        for layer in part.modules():
            if isinstance(layer, nn.Conv2d):
                hooks.append(layer.register_forward_hook(count))
    stock.run(tmp_path / "out")
    for hook in hooks:
        hook.remove()

    assert stock.trunk_gflop() == pytest.approx(sum(counted) / 2 / 1e9, rel=1e-12)


def test_stages_do_not_count_what_is_inside_them() -> None:
    """A stage has its own seconds only, several calls add up, and `reset` begins anew."""

    class Owner:
        def work(self, number: int) -> int:
            return number + 1

    stages, owner = Stages(CPU), Owner()
    stages.watch(owner, "work", "inner")
    start = time.perf_counter()
    with stages.of("outer"):
        assert [owner.work(1), owner.work(number=2)] == [2, 3]
        time.sleep(0.02)
        with stages.of("inner"):
            time.sleep(0.05)
    whole = time.perf_counter() - start

    assert 0.05 <= stages.seconds["inner"] <= whole - 0.02
    assert 0.02 <= stages.seconds["outer"] <= whole - 0.05
    stages.reset()
    assert stages.seconds == {}
