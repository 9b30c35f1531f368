"""`segcli models` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segcli.cli.main import main
from segcli.zoo import load_model


def test_list_names_weights_and_architectures(capsys: pytest.CaptureFixture[str]) -> None:
    """As a table and as JSON; names of weights hold a slash, names of architectures never."""
    assert main(["models", "list"]) == 0
    assert "torchvision/mask-rcnn-r50-fpn-coco" in capsys.readouterr().out
    assert main(["models", "list", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert all("/" in w["name"] for w in table["weights"])
    assert {a["name"] for a in table["architectures"]} >= {"mask-rcnn-r50-fpn", "mask-rcnn-nano"}
    assert not any("/" in a["name"] for a in table["architectures"])


def test_init_then_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Random weights that load, with the classes by name; the same seed gives the same file."""
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    for path in (first, second):
        command = ["models", "init", "mask-rcnn-nano", "--classes", "nut, bolt", "--seed", "3"]
        assert main([*command, "--output", str(path)]) == 0
    assert first.read_bytes() == second.read_bytes()
    assert load_model(str(first)).categories.names == ("nut", "bolt")
    capsys.readouterr()
    assert main(["models", "show", str(first)]) == 0
    shown = capsys.readouterr().out
    assert "nut, bolt" in shown
    assert "mask-rcnn-nano" in shown
    assert main(["models", "show", str(first), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["classes"] == ["nut", "bolt"]
    assert facts["conventions"]["numerics"]["roi_aligned"] is True


def test_show_an_architecture(capsys: pytest.CaptureFixture[str]) -> None:
    """Its size and how it is trained."""
    assert main(["models", "show", "mask-rcnn-nano", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert 3e6 < facts["parameters"] < 6e6
    assert facts["recipe"]["optimizer"] == "adamw"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        pytest.param("show absent.pth", 2, "no such file", id="no file"),
        pytest.param(
            "init yolo --classes 2 --output x.safetensors", 2, "no such architecture", id="arch"
        ),
        pytest.param(
            "init mask-rcnn-nano --classes 0 --output x.safetensors", 2, "1 to 10000", id="zero"
        ),
        pytest.param(
            "init mask-rcnn-nano --classes a,a --output x.safetensors", 2, "different", id="equal"
        ),
        pytest.param(
            "init mask-rcnn-nano --classes 2 --output x.pth", 2, ".safetensors", id="suffix"
        ),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: str, code: int, message: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Exit code 2, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    assert main(["models", *arguments.split()]) == code
    err = capsys.readouterr().err.strip().splitlines()
    assert len(err) == 1
    assert message in err[0]
    assert not list(tmp_path.glob("*.safetensors"))


def test_init_does_not_replace_without_overwrite(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An existing file stays."""
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"mine")
    command = ["models", "init", "mask-rcnn-nano", "--classes", "2", "--output", str(path)]
    assert main(command) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert path.read_bytes() == b"mine"
    assert main([*command, "--overwrite"]) == 0
    assert load_model(str(path)).categories.names == ("class1", "class2")


def test_damaged_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1."""
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"junk")
    assert main(["models", "show", str(path)]) == 1
    err = capsys.readouterr().err.strip().splitlines()
    assert len(err) == 1
    assert "no readable safetensors" in err[0]
