"""`scripts/make_fixture_weights.py`: weights of a fixture as a file for `--model`."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from segcli.models.conventions import TORCHVISION_V1_COCO
from segcli.zoo import COCO_91, load_model

NAME = "tv_maskrcnn_resnet50_fpn"


@pytest.fixture(scope="module")
def script(repository: Path) -> ModuleType:
    path = repository / "scripts" / "make_fixture_weights.py"
    spec = importlib.util.spec_from_file_location("make_fixture_weights", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_file_opens(
    script: ModuleType,
    shared: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Weights with the fixture's digest, torchvision's conventions and COCO's 90 classes."""
    out = tmp_path / "weights.safetensors"
    monkeypatch.setattr(sys, "argv", ["x", str(shared("fixtures")), NAME, str(out)])
    assert script.main() == 0
    model = load_model(str(out))

    assert (model.spec.architecture, model.spec.classes) == ("mask-rcnn-r50-fpn", 90)
    assert model.spec.conventions == TORCHVISION_V1_COCO
    assert model.categories == COCO_91
    assert model.info["recipe"] == NAME


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        (
            "absent",
            {},
            "state_dict.json: cannot be read (No such file or directory); give FIXTURES",
        ),
        ("bare", {}, "recipe.py: no such file; expected the recipe of the fixtures"),
        (
            "bare",
            {"recipe.py": "make_state_dict = lambda *_, **__: {}\ndigest = lambda _: 'b'"},
            "bare: the recipe gives weights of digest b, not a",
        ),
        (
            "bare",
            {"recipe.py": "make_state_dict = lambda *_, **__: {}\ndigest = lambda _: 'a'"},
            "bare: not torchvision's Mask R-CNN R50-FPN with 90 classes",
        ),
    ],
)
def test_other_folders(
    script: ModuleType,
    name: str,
    files: dict[str, str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is missing or wrong is one line, and nothing is written."""
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "state_dict.json").write_text('{"digest": "a", "tensors": {}}')
    for file, text in files.items():
        (tmp_path / file).write_text(text)
    out = tmp_path / "out.safetensors"
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path), name, str(out)])

    assert script.main() in (1, 2)
    assert message in capsys.readouterr().err
    assert not out.exists()
