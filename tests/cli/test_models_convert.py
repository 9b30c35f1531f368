"""`segcli models show` and `convert` on files of other families, as a user runs them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch

from segcli.cli.main import main
from segcli.models import Anchors, MaskRCNN, ModelSpec
from segcli.models.presets import preset
from segcli.zoo import load_model


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Names of torchvision with three classes: nothing in the file tells eps or classes."""
    path = tmp_path_factory.mktemp("weights") / "model_9.pth"
    spec = ModelSpec("mask-rcnn-r18-fpn", 3, Anchors(), preset("torchvision-v1"))
    torch.save({"model": MaskRCNN(spec).state_dict(), "epoch": 9}, path)
    return path


def test_show_says_what_is_found_and_what_is_missing(
    foreign: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without conventions too."""
    assert main(["models", "show", str(foreign), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["family"], facts["architecture"]) == ("torchvision", "mask-rcnn-r18-fpn")
    assert facts["conventions"].startswith("unknown; give --conventions torchvision-v1")
    assert main(["models", "show", str(foreign), "--conventions", "torchvision-v1", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["conventions name"] == "torchvision-v1"
    assert facts["conventions from"] == "--conventions torchvision-v1"
    assert facts["licence"] == "unknown"
    assert len(facts["sha256"]) == 64
    assert main(["models", "show", str(foreign), "--conventions", "torchvision-v1"]) == 0
    assert "mask-rcnn-r18-fpn" in capsys.readouterr().out


def test_convert(foreign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is written needs no option any more, and has what was stated."""
    out = tmp_path / "ours.safetensors"
    command = ["models", "convert", str(foreign), "--output", str(out)]
    assert main(command) == 1
    assert "give --conventions" in capsys.readouterr().err
    assert not out.exists()
    more = ["--conventions", "torchvision-v1", "--classes", "oak,ash,elm", "--licence", "CC0-1.0"]
    assert main([*command, *more, "--source", "https://example.org/trees"]) == 0
    assert "licence CC0-1.0, source https://example.org/trees" in capsys.readouterr().out
    ours, theirs = load_model(str(out)), load_model(str(foreign), "torchvision-v1")
    assert ours.spec == theirs.spec
    assert all(torch.equal(ours.state[name], tensor) for name, tensor in theirs.state.items())
    assert ours.categories.names == ("oak", "ash", "elm")
    assert main([*command, *more]) == 2
    assert "exists" in capsys.readouterr().err
    assert main([*command, "--overwrite", "--conventions", "torchvision-v1"]) == 0
    printed = capsys.readouterr().out
    assert "licence unknown (--licence adds it)" in printed


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        pytest.param("--output x.pth", 2, ".safetensors", id="suffix"),
        pytest.param("--output x.safetensors --conventions no", 2, "no such name", id="name"),
        pytest.param(
            "--output x.safetensors --conventions torchvision-v1 --classes a,b",
            2,
            "expected 3",
            id="classes",
        ),
    ],
)
def test_wrong_usage(
    arguments: str, code: int, message: str, foreign: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """One line, nothing written."""
    monkeypatch.chdir(tmp_path)
    assert main(["models", "convert", str(foreign), *arguments.split()]) == code
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert not list(tmp_path.glob("x.*"))


def test_a_file_that_would_run_code_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By name, in one line, with exit code 1; and a file is never converted onto itself."""
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({"model": eval}))
    assert main(["models", "show", str(path)]) == 1
    err = capsys.readouterr().err.strip().splitlines()
    assert len(err) == 1
    assert "refused: names builtins.eval" in err[0]
    own = tmp_path / "x.safetensors"
    own.write_bytes(b"mine")
    assert main(["models", "convert", str(own), "--output", str(own), "--overwrite"]) == 2
    assert "is the input itself" in capsys.readouterr().err
    assert own.read_bytes() == b"mine"


def test_architectures_have_their_own_conventions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--conventions is for weights; without a model `eval` takes none."""
    data = tmp_path / "a.json"
    data.write_text('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}')
    assert (
        main(["eval", str(data), "--predictions", str(data), "--conventions", "torchvision-v1"])
        == 2
    )
    assert "--conventions needs --model" in capsys.readouterr().err
