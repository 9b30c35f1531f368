"""Files of every family through `load_model`: tensors, classes, conventions and where each comes from."""

from __future__ import annotations

import argparse
import hashlib
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from segcli import published
from segcli.errors import ModelError, UsageError
from segcli.models import Anchors, MaskRCNN, ModelSpec
from segcli.models.class_layout import BACKGROUND_FIRST, BACKGROUND_LAST
from segcli.models.presets import PRESETS, preset
from segcli.weights.classes import COCO_80, COCO_91
from segcli.weights.converting import converted
from segcli.weights.evidence import UnknownConventionsError
from segcli.zoo import load_model, save_model

State = dict[str, Tensor]
Small = Callable[..., State]


def _same(found: State, expected: State) -> bool:
    return found.keys() == expected.keys() and all(
        torch.equal(found[n], expected[n]) for n in expected
    )


def _config(module: str) -> str:
    """A config of mmdetection 2.x with the Caffe style, from the tests of that reader."""
    import importlib.util

    path = Path(__file__).with_name("test_family_configs.py")
    spec = importlib.util.spec_from_file_location("family_configs", path)
    assert spec is not None
    assert spec.loader is not None
    loaded: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    text = {"1": loaded.ONE, "2": loaded.TWO, "3": loaded.THREE}[module]
    return text if module == "1" else str(loaded.mm_text(text, "mmdetection-caffe"))


@pytest.mark.parametrize("suffix", ["pkl", "pth", "legacy.pth", "safetensors"])
def test_detectron2_round_trip(
    suffix: str, small_state: Small, layouts: ModuleType, tmp_path: Path
) -> None:
    """Every container of it; the buffers of old files are left out; 80 classes are COCO's."""
    state = small_state(name="detectron2-r50", classes=80)
    native = layouts.to_detectron2(state)
    native["pixel_mean"] = torch.zeros(3, 1, 1)
    native["proposal_generator.anchor_generator.cell_anchors.0"] = torch.zeros(3, 4)
    path = tmp_path / f"model_final.{suffix}"
    if suffix == "pkl":
        arrays = {name: tensor.numpy() for name, tensor in native.items()}
        path.write_bytes(pickle.dumps({"model": arrays, "__author__": "them"}))
    elif suffix == "safetensors":
        save_file(native, path)
    else:
        torch.save(
            {"model": native, "iteration": 9}, path, _use_new_zipfile_serialization=suffix == "pth"
        )
    (tmp_path / "config.yaml").write_text(
        "_BASE_: ../Base-RCNN-FPN.yaml\nMODEL: {RESNETS: {DEPTH: 50}}"
    )
    loaded = load_model(str(path))
    assert _same(loaded.state, state)
    assert loaded.spec.conventions == PRESETS["detectron2-r50"]
    assert loaded.info["conventions"] == "detectron2-r50: config.yaml beside the weights"
    assert loaded.categories is COCO_80
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_caffe2_round_trip(small_state: Small, layouts: ModuleType, tmp_path: Path) -> None:
    """Class rows get detectron2's order; means 0 and variances 1 that Caffe2 folded in."""
    state = small_state(name="detectron2-r50", classes=80)
    state |= {n: torch.zeros_like(t) for n, t in state.items() if n.endswith("running_mean")}
    state |= {n: torch.ones_like(t) for n, t in state.items() if n.endswith("running_var")}
    blobs = {name: tensor.numpy() for name, tensor in layouts.to_caffe2(state).items()}
    for content in (blobs, {"blobs": {**blobs, "lr": 0.1, "weight_order": ["a"]}}):
        (tmp_path / "x.pkl").write_bytes(pickle.dumps(content, protocol=2))
        loaded = load_model(str(tmp_path / "x.pkl"), "detectron2-r50")
        assert _same(loaded.state, state)
        assert loaded.spec.conventions.numerics.class_layout == BACKGROUND_LAST


@pytest.mark.parametrize("version", ["2", "3"])
def test_mmdetection_round_trip(
    version: str, small_state: Small, layouts: ModuleType, tmp_path: Path
) -> None:
    """The config inside the file tells the conventions, the class list the classes."""
    state = small_state(name="mmdetection-caffe", classes=3)
    names = ("bolt", "nut", "washer")
    meta: dict[str, Any] = {"2": {"CLASSES": names, "config": _config("2"), "mmdet_version": "2.25.3"},
                            "3": {"dataset_meta": {"classes": names}, "cfg": _config("3")}}[version]  # fmt: skip
    torch.save({"meta": meta, "state_dict": layouts.to_mmdetection(state)}, tmp_path / "x.pth")
    loaded = load_model(str(tmp_path / "x.pth"))
    assert _same(loaded.state, state)
    assert loaded.spec.conventions == PRESETS["mmdetection-caffe"]
    assert loaded.info["conventions"] == "mmdetection-caffe: the config inside the file"
    assert loaded.categories.names == names
    assert (
        load_model(str(tmp_path / "x.pth"), "mmdetection-pytorch").spec.conventions
        == PRESETS["mmdetection-pytorch"]
    )


def test_mmdetection_1_round_trip(
    small_state: Small, layouts: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Background first and in every head, nothing moved; told by the names, so a version text does not matter."""
    state = small_state(name="torchvision-v1", classes=80)
    classes = tuple(name.replace(" ", "_") for name in COCO_80.names)
    meta = {"CLASSES": classes, "config": _config("1"), "mmdet_version": "2.25.3"}
    torch.save({"meta": meta, "state_dict": layouts.to_mmdetection1(state)}, tmp_path / "x.pth")
    loaded = load_model(str(tmp_path / "x.pth"))
    assert _same(loaded.state, state)
    numerics = loaded.spec.conventions.numerics
    assert (numerics.class_layout, numerics.roi_aligned, numerics.roi_sampling_ratio) == (
        BACKGROUND_FIRST,
        False,
        2,
    )
    assert loaded.categories is COCO_80
    assert "mmdetection 1.x counted a box's last pixel" in capsys.readouterr().err


def _torchvision_cases() -> dict[str, tuple[dict[str, Any], str, float, str]]:
    """Beside the weights → (form, eps, why)."""
    space = argparse.Namespace
    return {
        "fine-tuned": ({"args": space(weights="MaskRCNN_ResNet50_FPN_Weights.COCO_V1")}, "scale_bias", 0.0, "args"),
        "pretrained": ({"args": space(pretrained=True)}, "scale_bias", 0.0, "args"),
        "from ImageNet": ({"args": space(weights=None, weights_backbone="IMAGENET1K_V1")}, "scale_bias", 1e-5, "args"),
    }  # fmt: skip


@pytest.mark.parametrize("case", ["fine-tuned", "pretrained", "from ImageNet"])
def test_references_of_torchvision(case: str, small_state: Small, tmp_path: Path) -> None:
    """Their args say what the weights started from, and so which eps the norms have."""
    beside, form, eps, why = _torchvision_cases()[case]
    torch.save({"model": small_state(classes=4), "epoch": 1, **beside}, tmp_path / "model_1.pth")
    loaded = load_model(str(tmp_path / "model_1.pth"))
    numerics = loaded.spec.conventions.numerics
    assert (numerics.bn_form, numerics.bn_eps) == (form, eps)
    assert why in loaded.info["conventions"]
    assert loaded.categories.names == ("class 1", "class 2", "class 3", "class 4")
    assert "numbered" in loaded.info["classes"]


def test_bare_torchvision_weights(small_state: Small, tmp_path: Path) -> None:
    """91 rows are the zoo's; counters mean plain batch norm; else the user must say."""
    path = tmp_path / "x.pth"
    torch.save(small_state(), path)
    loaded = load_model(str(path))
    assert loaded.spec.conventions == PRESETS["torchvision-v1"]
    assert loaded.categories is COCO_91
    few = small_state(classes=2)
    torch.save({"model": few, "classes": ["__background__", "cat", "dog"]}, path)
    with pytest.raises(
        UnknownConventionsError, match=r"give --conventions torchvision-v1 .* bn_eps = 1e-5"
    ) as caught:
        load_model(str(path))
    assert "\n" not in str(caught.value)
    assert load_model(str(path), "torchvision-v1").categories.names == ("cat", "dog")
    counted = {
        n.replace("running_mean", "num_batches_tracked"): torch.tensor(1)
        for n in few
        if n.endswith("running_mean")
    }
    torch.save(few | counted, path)
    assert load_model(str(path)).spec.conventions.numerics.bn_form == "batch_norm"
    assert _same(load_model(str(path)).state, few)


def test_nothing_is_guessed(small_state: Small, layouts: ModuleType, tmp_path: Path) -> None:
    """Without a config, a hash or an option, the presets to choose from are named."""
    for name, family, rename in (
        ("detectron2-r50", "detectron2", layouts.to_detectron2),
        ("mmdetection-caffe", "mmdetection", layouts.to_mmdetection),
    ):
        torch.save(rename(small_state(name=name, classes=80)), tmp_path / "x.pth")
        with pytest.raises(
            UnknownConventionsError, match=f"give --conventions {name.split('-')[0]}-"
        ) as caught:
            load_model(str(tmp_path / "x.pth"))
        assert caught.value.facts["family"] == family
        assert len(str(caught.value).splitlines()) == 1


def test_a_config_that_cannot_be_followed_is_an_error(
    small_state: Small, layouts: ModuleType, tmp_path: Path
) -> None:
    """Not passed over for a default; --conventions still wins."""
    state = layouts.to_detectron2(small_state(name="detectron2-r50", classes=80))
    torch.save(state, tmp_path / "x.pth")
    (tmp_path / "x.yaml").write_text("MODEL: {FPN: {NORM: GN}}")
    with pytest.raises(ModelError, match=r"MODEL\.FPN\.NORM = 'GN' is not supported"):
        load_model(str(tmp_path / "x.pth"))
    assert (
        load_model(str(tmp_path / "x.pth"), "detectron2-x101").spec.conventions
        == PRESETS["detectron2-x101"]
    )
    mm = layouts.to_mmdetection(small_state(name="mmdetection-caffe", classes=80))
    torch.save({"meta": {"config": "model = make()"}, "state_dict": mm}, tmp_path / "y.pth")
    with pytest.raises(ModelError, match="the config inside the file does not tell"):
        load_model(str(tmp_path / "y.pth"))


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_published_files_are_known_by_their_hash(
    kind: str,
    small_state: Small,
    layouts: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the hash of the contents; six digits of an MD5 only where the name has them too."""
    state = layouts.to_detectron2(small_state(name="detectron2-x101", classes=80))
    torch.save(state, tmp_path / "x.pth")
    data = (tmp_path / "x.pth").read_bytes()
    prefix = hashlib.new(kind, data, usedforsecurity=False).hexdigest()[
        : 8 if kind == "sha256" else 6
    ]
    row = next(r for r in published.PUBLISHED.values() if r.conventions == "detectron2-x101")
    row = replace(row, hash_kind=kind, hash_prefix=prefix)
    monkeypatch.setitem(published.PUBLISHED, row.name, row)
    named = tmp_path / f"model_final_{prefix}.pth"
    named.write_bytes(data)
    loaded = load_model(str(named))
    assert loaded.spec.conventions == PRESETS["detectron2-x101"]
    assert loaded.info["published as"] == row.name
    assert loaded.info["licence"] == row.licence
    if kind == "md5":
        with pytest.raises(UnknownConventionsError):
            load_model(str(tmp_path / "x.pth"))
        named.write_bytes(data + b"\n")
        with pytest.raises(ModelError):
            load_model(str(named))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.toml", 'base = "detectron2-r50"\n[preprocess]\nmin_size = 640\n'),
        ("c.json", '{"base": "detectron2-r50", "preprocess": {"min_size": 640}}'),
        ("c.yaml", "MODEL: {}\nINPUT: {MIN_SIZE_TEST: 640}"),
    ],
)
def test_conventions_by_file(
    name: str, text: str, small_state: Small, layouts: ModuleType, tmp_path: Path
) -> None:
    """A preset with changes as TOML or JSON, or the family's own config."""
    torch.save(
        layouts.to_detectron2(small_state(name="detectron2-r50", classes=80)), tmp_path / "x.pth"
    )
    (tmp_path / name).write_text(text)
    found = load_model(str(tmp_path / "x.pth"), str(tmp_path / name)).spec.conventions
    assert found == PRESETS["detectron2-r50"].changed({"preprocess": {"min_size": 640}})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("absent", None, "no such file, and no such name; names are: torchvision-v1"),
        ("c.toml", "a = [", "c.toml"),
        ("c.json", "[1]", "no table"),
        ("c.json", '{"base": "detectron2-r50", "preprocess": {"min": 3}}', "no field 'min'"),
        ("c.py", "model = 3", "model is not in it"),
        ("c.yaml", "a: 1", "no detectron2 config"),
    ],
)
def test_wrong_conventions(
    name: str, text: str | None, message: str, small_state: Small, tmp_path: Path
) -> None:
    """Wrong usage, in one line."""
    torch.save(small_state(), tmp_path / "x.pth")
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        load_model(str(tmp_path / "x.pth"), str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_heads_that_do_not_fit(small_state: Small, layouts: ModuleType, tmp_path: Path) -> None:
    """Class-agnostic heads, rows of another family, other anchors, integers, half precision."""
    path, state = tmp_path / "x.pth", small_state(name="detectron2-r50", classes=80)
    boxes = "roi_heads.box_predictor.bbox_pred.weight"
    for change, message in (
        ({boxes: torch.zeros(4, 3)}, "class-agnostic"),
        ({boxes: torch.zeros(17, 3)}, "fit no layout"),
        ({"rpn.head.cls_logits.weight": torch.zeros(6, 3, 1, 1)}, "6 anchors per place"),
        (
            {"backbone.body.layer1.0.conv2.weight": torch.zeros(48, 48, 3, 3)},
            "width 48 in 1 groups",
        ),
        ({"roi_heads.box_head.fc6.bias": torch.zeros(3, dtype=torch.int32)}, "expected floats"),
    ):
        torch.save(layouts.to_detectron2(state | change), path)
        with pytest.raises(ModelError, match=message):
            load_model(str(path), "detectron2-r50")
    torch.save(layouts.to_mmdetection(small_state(classes=80)), path)
    with pytest.raises(ModelError, match=r"not those of mmdetection 2\.0"):
        load_model(str(path), "mmdetection-caffe")
    torch.save(layouts.to_detectron2({n: t.half() for n, t in state.items()}), path)
    assert {t.dtype for t in load_model(str(path), "detectron2-r50").state.values()} == {
        torch.float32
    }


def test_converted_weights_are_the_same(
    small_state: Small, layouts: ModuleType, tmp_path: Path
) -> None:
    """Tensors, conventions, anchors and classes; licence and source as stated, and no option is needed any more."""
    torch.save(
        layouts.to_detectron2(small_state(name="detectron2-r50", classes=2)), tmp_path / "x.pth"
    )
    loaded = load_model(str(tmp_path / "x.pth"), "detectron2-r50")
    ours = converted(loaded, classes=("oak", "ash"), licence="CC0-1.0", source="a forest")
    save_model(tmp_path / "x.safetensors", ours)
    again = load_model(str(tmp_path / "x.safetensors"))
    assert _same(again.state, loaded.state)
    assert again.spec == loaded.spec
    assert again.categories.names == ("oak", "ash")
    assert (again.info["licence"], again.info["source"]) == ("CC0-1.0", "a forest")
    assert again.info["converted from"]["sha256"] == loaded.sha256
    assert (
        load_model(str(tmp_path / "x.safetensors"), "detectron2-x101").spec.conventions
        == PRESETS["detectron2-x101"]
    )
    with pytest.raises(UsageError, match="1 different names, expected 2"):
        converted(loaded, classes=("oak", "oak"), licence=None, source=None)


def test_outputs_are_equal_through_every_layout(layouts: ModuleType, tmp_path: Path) -> None:
    """A whole network, written as detectron2 and mmdetection do, read back and run: the same bits."""
    torch.manual_seed(0)
    picture = torch.rand(1, 3, 64, 96)
    for name, rename in (
        ("detectron2-r50", layouts.to_detectron2),
        ("mmdetection-pytorch", layouts.to_mmdetection),
    ):
        spec = ModelSpec("mask-rcnn-r18-fpn", 3, Anchors(), preset(name))
        network = MaskRCNN(spec).eval()
        torch.save(rename(network.state_dict()), tmp_path / "x.pth")
        again = load_model(str(tmp_path / "x.pth"), name).build()
        with torch.inference_mode():
            before, after = network(picture, [(60, 90)])[0], again(picture, [(60, 90)])[0]
        assert torch.equal(before.boxes, after.boxes)
        assert torch.equal(before.scores, after.scores)
        assert torch.equal(before.masks, after.masks)
