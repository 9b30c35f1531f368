"""What training begins with: heads for the classes of the data, and stages that keep their weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from segcli.categories import Categories
from segcli.config import TrainConfig
from segcli.data.coco import read_coco
from segcli.models import ARCHITECTURES, Anchors, Detections, MaskRCNN, ModelSpec
from segcli.models.class_layout import BACKGROUND_FIRST, BACKGROUND_LAST, ClassLayout
from segcli.training.material import Material
from segcli.training.start import freeze_stages, starting_model
from segcli.zoo import LoadedModel, load_model, save_model

Squares = Callable[..., Path]
BEFORE, NOW = ("cat", "dog", "cow"), ("cow", "cat", "dog")


def _material(squares: Squares, classes: Sequence[str]) -> Material:
    return Material.of([read_coco(squares("train", 2, tuple(classes)))])


def _weights(path: Path, layout: ClassLayout) -> str:
    """A file of random nano weights that know `BEFORE`, with heads that tell the classes apart."""
    row = ARCHITECTURES["mask-rcnn-nano"]
    numerics = replace(row.conventions.numerics, class_layout=layout)
    spec = ModelSpec(row.name, 3, Anchors(), replace(row.conventions, numerics=numerics))
    torch.manual_seed(0)
    state = MaskRCNN(spec).state_dict()
    for name, value in state.items():
        if "box_predictor" in name or "mask_fcn_logits" in name:
            state[name] = torch.randn_like(value) * 0.02
    save_model(path, LoadedModel(spec, Categories.from_names(BEFORE), state, "", ""))
    return str(path)


def _found(model: LoadedModel) -> Detections:
    network = model.build()
    network.set_limits(score=0.0, max_detections=300)
    images = torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        found = network(images, [(96, 128)])[0]
    assert isinstance(found, Detections)
    return found


def _by_class(found: Detections, names: Sequence[str]) -> dict[str, list[Tensor]]:
    return {
        name: [part[found.labels == k] for part in (found.boxes, found.scores, found.masks)]
        for k, name in enumerate(names)
    }


@pytest.mark.parametrize(
    "layout", [BACKGROUND_FIRST, BACKGROUND_LAST], ids=["background first", "background last"]
)
def test_the_same_classes_in_another_order_keep_their_heads(
    layout: ClassLayout, squares: Squares, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every class finds what it found before, under its number in the data; and that is said."""
    weights = _weights(tmp_path / "w.safetensors", layout)
    start = starting_model(TrainConfig(model=weights), _material(squares, NOW))
    assert start.categories.names == NOW
    assert "knows these classes in another order" in capsys.readouterr().err
    before, now = _by_class(_found(load_model(weights)), BEFORE), _by_class(_found(start), NOW)
    assert all(len(boxes) > 0 for boxes, _, _ in before.values())
    for name in BEFORE:
        for one, other in zip(before[name], now[name], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_other_classes_get_new_heads(
    squares: Squares, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where there are as many; what is not of the classes is kept."""
    weights = _weights(tmp_path / "w.safetensors", BACKGROUND_FIRST)
    start = starting_model(TrainConfig(model=weights), _material(squares, ("cow", "cat", "hen")))
    assert (
        "knows 3 classes, not just these: its predictor heads are made anew"
        in capsys.readouterr().err
    )
    given = load_model(weights).state
    changed = {name for name, value in start.state.items() if not torch.equal(value, given[name])}
    heads = ("box_predictor.cls_score", "box_predictor.bbox_pred", "mask_predictor.mask_fcn_logits")
    assert changed == {f"roi_heads.{head}.{kind}" for head in heads for kind in ("weight", "bias")}


def _network(architecture: str) -> MaskRCNN:
    row = ARCHITECTURES[architecture]
    return MaskRCNN(ModelSpec(architecture, 1, Anchors(), row.conventions))


def _frozen(network: MaskRCNN) -> set[str]:
    return {name for name, weight in network.named_parameters() if not weight.requires_grad}


# of the body's maps, their strides: those after the stages that were frozen
@pytest.mark.parametrize(
    "architecture", ["mask-rcnn-nano", "mask-rcnn-mobilenet-v3-fpn", "mask-rcnn-r18-fpn"]
)
def test_each_stage_that_keeps_its_weights(
    architecture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stage k holds all that makes the maps of strides 4 … 2ᵏ, and nothing behind them."""
    for stages in range(6):
        network = _network(architecture)
        freeze_stages(network, str(stages))
        frozen = _frozen(network)
        assert all(name.startswith("backbone.body.") for name in frozen)
        said = f"{stages} of 5 (--freeze {stages})" in capsys.readouterr().err
        assert said == (stages > 0)
        maps = network.backbone.body(torch.randn(1, 3, 64, 64))
        learning = [x.requires_grad for x in maps.values()]
        assert learning == [stage > stages for stage in range(2, 6)]
        assert bool(frozen) == (stages > 0)
    whole = {f"backbone.body.{name}" for name, _ in network.backbone.body.named_parameters()}
    assert frozen == whole


def test_the_stem_alone() -> None:
    """Of each network its first convolution and what normalises it."""
    for architecture, parts in (
        ("mask-rcnn-mobilenet-v3-fpn", {"0"}),
        ("mask-rcnn-nano", {"conv1", "bn1"}),
    ):
        network = _network(architecture)
        freeze_stages(network, "1")
        assert {name.split(".")[2] for name in _frozen(network)} == parts


def test_a_frozen_backbone() -> None:
    """With its pyramid; the heads learn."""
    network = _network("mask-rcnn-nano")
    freeze_stages(network, "backbone")
    assert _frozen(network) == {
        n for n, _ in network.named_parameters() if n.startswith("backbone.")
    }
