"""`segcli models list`, `fetch` and `verify` as a user runs them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from segcli import zoo
from segcli.cli.main import main
from segcli.cli.models_list import list_models
from segcli.config import PredictConfig
from segcli.evaluation import verification
from segcli.evaluation.verification import Compared, Verification
from segcli.published import PUBLISHED, find

NAME = "torchvision/mask-rcnn-r50-fpn-coco"
D2 = "detectron2/mask-rcnn-r50-fpn-3x"


def put(server: Any, monkeypatch: pytest.MonkeyPatch, name: str, data: bytes) -> str:
    """Let a name's address lead to this machine; the path asked for."""
    row = find(name)
    path = f"zoo/{row.file_name}"
    digest = hashlib.new(row.hash_kind or "sha256", data).hexdigest()
    address = server.put(path, data)
    monkeypatch.setitem(PUBLISHED, name, replace(row, address=address, hash_prefix=digest[:6]))
    return path


def test_list_as_tables(capsys: pytest.CaptureFixture[str]) -> None:
    """All names, APs in points as published, and why some do not run."""
    assert main(["models", "list"]) == 0
    page, said = capsys.readouterr()
    for text in (
        "detectron2/mask-rcnn-r50-fpn-3x",
        "41.0",
        "37.2",
        "CC-BY-SA-3.0",
        "mask-rcnn-nano",
    ):
        assert text in page
    assert "supported: no (C4" in page
    assert "--json" in said


@pytest.mark.parametrize("family", ["torchvision", "detectron2", "mmdetection"])
def test_list_one_family(family: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Its weights alone, in the tables and in JSON."""
    assert main(["models", "list", "--family", family]) == 0
    page = capsys.readouterr().out
    assert f"{family}/mask-rcnn-r50" in page
    assert page.count("/mask-rcnn-") == page.count(f"{family}/mask-rcnn-")
    assert "mask-rcnn-nano" not in page
    assert main(["models", "list", "--family", family, "--json"]) == 0
    weights = json.loads(capsys.readouterr().out)["weights"]
    assert {w["family"] for w in weights} == {family}


def test_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Every row with its source; unknown is null; nothing on stderr."""
    assert main(["models", "list", "--json"]) == 0
    out, err = capsys.readouterr()
    weights = {w["name"]: w for w in json.loads(out)["weights"]}
    assert len(weights) == len(PUBLISHED)
    assert all(w["source"] for w in weights.values())
    assert weights[D2]["box_ap"] == 0.41
    assert weights[D2]["megabytes"] is None
    assert weights[D2]["supported"] is True
    assert weights["detectron2/mask-rcnn-r50-c4-1x"]["supported"] is False
    assert err == ""


def test_an_unknown_family(capsys: pytest.CaptureFixture[str]) -> None:
    """One line with the known ones."""
    assert main(["models", "list", "--family", "keras"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "mmdetection" in line
    assert list_models.name == "list"


def test_fetch_by_name(
    file_server: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Twice the same name and twice the same command: one download each; stdout has name and place."""
    paths = [put(file_server, monkeypatch, name, name.encode()) for name in (NAME, D2)]
    assert main(["models", "fetch", NAME, D2, NAME]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines] == [NAME, D2]
    assert [Path(line.split(": ")[1]).read_text() for line in lines] == [NAME, D2]
    assert main(["models", "fetch", D2]) == 0
    assert file_server.asked == [f"/{path}" for path in paths]


def test_fetch_from_a_mirror(
    file_server: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Below a folder of its own, by the publisher's path."""
    path = put(file_server, monkeypatch, D2, b"weights")
    (file_server.folder / "mine").mkdir()
    (file_server.folder / "zoo").rename(file_server.folder / "mine" / "zoo")
    assert main(["models", "fetch", D2, "--mirror", f"{file_server.address}/mine"]) == 0
    assert file_server.asked == [f"/mine/{path}"]
    assert main(["models", "fetch", NAME, "--mirror", "http://192.0.2.1"]) == 2
    assert "only https" in capsys.readouterr().err


def test_fetch_what_cannot_run(
    file_server: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is fetched, and the reason is said."""
    put(file_server, monkeypatch, "detectron2/mask-rcnn-r50-c4-1x", b"weights")
    assert main(["models", "fetch", "detectron2/mask-rcnn-r50-c4-1x"]) == 0
    assert "cannot run these weights (C4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "code", "message"),
    [
        pytest.param([D2, "detectron2/mask-rcnn-r50-fpn-9x"], 2, "nearest: ", id="wrong name"),
        pytest.param(["zoo/\x1b[31mred"], 2, r"zoo/\x1b[31mred", id="terminal codes"),
        pytest.param([], 2, "NAME", id="no name"),
        pytest.param(["mmdetection/mask-rcnn-r50-fpn-15e-deepfashion"], 1, "Google Drive", id="no address"),
    ],
)  # fmt: skip
def test_fetch_refuses(
    names: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names are checked before the first download; one line each, terminal codes shown and not obeyed."""
    assert main(["models", "fetch", *names]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert "\x1b" not in err


def test_fetch_offline(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, one line, with the file's place."""
    monkeypatch.setenv("SEGCLI_OFFLINE", "1")
    assert main(["models", "fetch", D2]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "SEGCLI_OFFLINE" in line
    assert "model_final_f10217.pkl" in line


def test_a_model_that_cannot_run_is_refused(
    tmp_path: Path, file_server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its reason, before a download, in every command that takes MODEL."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    command = ["predict", "image", str(tmp_path / "a.png"), "--output", str(tmp_path / "out")]
    assert main([*command, "--model", "detectron2/mask-rcnn-r50-c4-1x"]) == 1
    assert "cannot run these weights (C4" in capsys.readouterr().err


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Two small pictures with a person each."""
    folder = tmp_path / "data"
    folder.mkdir()
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for n in range(2):
        noise = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{n}.png")
        images.append({"id": n, "file_name": f"{n}.png", "height": 48, "width": 64})
        annotations.append({
            "id": n, "image_id": n, "category_id": 1, "bbox": [5, 5, 20, 20], "area": 400,
            "iscrowd": 0, "segmentation": [[5, 5, 25, 5, 25, 25, 5, 25]],
        })  # fmt: skip
    table = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person"}],
    }
    (folder / "truth.json").write_text(json.dumps(table))
    return folder / "truth.json"


def test_verify_with_the_real_network(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Random weights in the cache's place: AP near 0, published 37.9; on the whole set that is exit code 1."""
    place = tmp_path / "segcli-home" / "weights" / str(find(NAME).file_name)
    place.parent.mkdir(parents=True)
    torch.save(dict(zoo.new_model("mask-rcnn-r50-fpn", zoo.COCO_91, seed=0).state), place)
    monkeypatch.setenv("SEGCLI_OFFLINE", "1")
    monkeypatch.setattr("segcli.evaluation.verification.WHOLE", {"COCO": 1})
    command = ["models", "verify", NAME, str(dataset), "--min-size", "64", "--device", "cpu"]
    assert main([*command, "--limit", "1"]) == 1
    out, err = capsys.readouterr()
    assert "37.9" in out
    assert "difference" in out
    assert "differs: AP on all 1 pictures is not within 0.2 points" in err
    assert "fp32" in err


@pytest.mark.parametrize(
    ("counts", "ap", "flags", "code"),
    [
        pytest.param((5000, 0), 0.379, [], 0, id="agrees"),
        pytest.param((5000, 0), 0.389, [], 1, id="differs"),
        pytest.param((5000, 0), 0.389, ["--within", "1"], 0, id="within one point"),
        pytest.param((80, 0), 0.389, [], 0, id="a part"),
        pytest.param((5000, 1), 0.389, [], 3, id="a picture that cannot be read"),
    ],
)
def test_verify_by_exit_code(
    counts: tuple[int, int], ap: float, flags: list[str], code: int, dataset: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """1 only where it is judged and differs; JSON on stdout, and the settings are those of eval."""
    configs: list[PredictConfig] = []

    def measured(name: str, path: Path, config: PredictConfig, **options: Any) -> Verification:
        configs.append(config)
        rows = (Compared("box AP", 37.9, 100 * ap), Compared("mask AP", 34.6, 34.6))
        pictures, failed = counts
        return Verification(find(name), str(path), pictures, failed, 5000, rows, options["within"])

    monkeypatch.setattr(verification, "verify", measured)
    assert main(["models", "verify", NAME, str(dataset), "--json", *flags]) == code
    table = json.loads(capsys.readouterr().out)
    assert table["pictures"] == counts[0]
    assert table["ap"]["mask"]["difference"] == 0
    assert configs[0].precision == "fp32"
    assert configs[0].score == PredictConfig().score


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        pytest.param([D2 + "x"], 2, "nearest: detectron2/mask-rcnn-r50-fpn-3x", id="wrong name"),
        pytest.param(["detectron2/mask-rcnn-r50-dc5-1x"], 1, "DC5", id="cannot run"),
        pytest.param([NAME, "--within", "-1"], 2, "--within", id="negative"),
        pytest.param([NAME, "--limit", "0"], 2, "--limit", id="no pictures"),
    ],
)
def test_verify_refuses(
    arguments: list[str], code: int, message: str, dataset: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """One line, nothing on stdout."""
    name, *options = arguments
    assert main(["models", "verify", name, str(dataset), *options]) == code
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.strip().splitlines()
    assert message in line
