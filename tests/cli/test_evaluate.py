"""`segcli eval` as a user runs it."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segcli.categories import Categories
from segcli.cli.main import main
from segcli.instances import Instances
from segcli.masks import Masks

SQUARE = [2, 3, 10, 10]
CORNERS = [[2, 3, 12, 3, 12, 13, 2, 13]]


def mask_rle() -> dict[str, Any]:
    dense = np.zeros((1, 20, 30), bool)
    dense[0, 3:13, 2:12] = True
    return Masks.from_dense(dense).coco(0)


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    """Two pictures with a square each."""
    annotation = {"category_id": 1, "bbox": SQUARE, "area": 100, "segmentation": CORNERS}
    names = ("a.png", "b.png")
    for name in names:
        Image.new("RGB", (30, 20)).save(tmp_path / name)
    table = {
        "images": [
            {"id": n, "file_name": f, "height": 20, "width": 30} for n, f in enumerate(names)
        ],
        "categories": [{"id": 1, "name": "square"}],
        "annotations": [{**annotation, "id": n, "image_id": n, "iscrowd": 0} for n in (0, 1)],
    }
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(table))
    return path


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    """The first square, found exactly."""
    row = {"image_id": 0, "category_id": 1, "score": 0.5, "bbox": SQUARE}
    path = tmp_path / "predictions.json"
    path.write_text(json.dumps([{**row, "segmentation": mask_rle()}]))
    return path


def test_table(truth: Path, predictions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Tables on stdout, what was joined on stderr."""
    assert main(["eval", str(truth), "--predictions", str(predictions)]) == 0
    out, err = capsys.readouterr()
    rows = [[c.strip() for c in line.split("│")[1:-1]] for line in out.splitlines() if "│" in line]
    assert ["AP", "0.505", "0.505"] in rows
    assert ["square", "0.505", "0.505", "2", "1"] in rows
    assert "evaluator: pycocotools" in err
    assert "1 pictures of the truth have no predictions" in err


def test_json(truth: Path, predictions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --json stdout is JSON and nothing else; the last recall is named after --max-dets."""
    code = main(
        ["eval", str(truth), "--predictions", str(predictions), "--json", "--max-dets", "7"]
    )
    assert code == 0
    data = json.loads(capsys.readouterr().out)
    assert data["box"]["AP"] == pytest.approx(51 / 101)
    assert data["mask"]["AR7"] == 0.5
    assert data["mask"]["APl"] is None
    assert data["max_dets"] == 7
    assert data["counts"]["missing_pictures"] == 1


def test_output(truth: Path, predictions: Path, tmp_path: Path) -> None:
    """--output writes metrics.json and config.toml; it is never touched without --overwrite."""
    out = tmp_path / "scores"
    arguments = ["eval", str(truth), "--predictions", str(predictions), "--output", str(out)]
    assert main(arguments) == 0
    first = json.loads((out / "metrics.json").read_text())
    assert set(first) >= {"box", "mask", "per_class", "max_dets", "evaluator", "counts"}
    settings = tomllib.loads((out / "config.toml").read_text())["settings"]
    assert settings["max_dets"] == 100
    assert "score" not in settings
    assert main([*arguments, "--max-dets", "5"]) == 1
    assert json.loads((out / "metrics.json").read_text()) == first
    assert main([*arguments, "--max-dets", "5", "--overwrite"]) == 0
    assert json.loads((out / "metrics.json").read_text())["max_dets"] == 5


def test_config_repeats_a_run(
    truth: Path, predictions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The saved config.toml is enough to run the same again; a flag wins over it."""
    out = tmp_path / "scores"
    arguments = ["eval", str(truth), "--predictions", str(predictions), "--max-dets", "5"]
    assert main([*arguments, "--output", str(out)]) == 0
    capsys.readouterr()
    assert main(["eval", "--config", str(out / "config.toml"), "--json"]) == 0
    assert capsys.readouterr().out == (out / "metrics.json").read_text()
    assert main(["eval", "--config", str(out / "config.toml"), "--json", "--max-dets", "6"]) == 0
    assert json.loads(capsys.readouterr().out)["max_dets"] == 6


def test_a_failed_run_leaves_the_old_results(
    truth: Path, predictions: Path, tmp_path: Path
) -> None:
    """--overwrite deletes only when there is something new to write."""
    out = tmp_path / "scores"
    arguments = ["eval", str(truth), "--predictions", str(predictions), "--output", str(out)]
    assert main(arguments) == 0
    predictions.write_text("[")
    assert main([*arguments, "--overwrite"]) == 1
    assert (out / "metrics.json").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        pytest.param(["T"], 2, "found neither of --model and --predictions", id="neither"),
        pytest.param(["T", "--model", "m", "--predictions", "P"], 2, "found both", id="both"),
        pytest.param(
            ["T", "--predictions", "nope"], 2, "'nope' does not exist", id="no predictions"
        ),
        pytest.param(["nope", "--predictions", "P"], 2, "'nope' does not exist", id="no dataset"),
        pytest.param(["T", "--predictions", "P", "--max-dets", "0"], 2, "x>=1", id="max-dets"),
        pytest.param(
            ["T", "--predictions", "P", "--score", "0.1"], 2, "--score needs --model", id="score"
        ),
        pytest.param(
            ["T", "--predictions", "P", "--device", "cpu"], 2, "--device needs", id="device"
        ),
        pytest.param(
            ["T", "--predictions", "P", "--batch-size", "2"], 2, "--batch-size", id="batch"
        ),
        pytest.param(
            ["T", "--predictions", "P", "--output", "."], 2, "choose another", id="onto inputs"
        ),
        pytest.param(
            ["T", "--predictions", "P", "--output", "full"], 1, "not empty", id="not ours"
        ),
        pytest.param(
            ["T", "--predictions", "T"], 1, "is this a file of predictions?", id="truth twice"
        ),
        pytest.param(
            ["T", "--predictions", "full"], 1, "neither predictions.json nor", id="folder"
        ),
        pytest.param(["P", "--predictions", "P"], 1, "predictions.json", id="list as dataset"),
    ],
)
def test_wrong_use_is_one_line(
    truth: Path,
    predictions: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    expected: str,
) -> None:
    """Each mistake is one line on stderr, nothing on stdout, and its exit code."""
    monkeypatch.chdir(truth.parent)
    Path("full").mkdir()
    Path("full/file.txt").write_text("mine")
    names = {"T": "truth.json", "P": "predictions.json"}
    assert main(["eval", *(names.get(a, a) for a in arguments)]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert expected in err.splitlines()[-1]
    assert sum(line.startswith("segcli:") for line in err.splitlines()) == 1
    assert Path("full/file.txt").read_text() == "mine"


class FindsTheSquare:
    """A stand-in for a model."""

    categories = Categories.from_names(["N/A", "square"])
    batch_size = 2

    def __init__(self, config: Any, roi_align: str) -> None:
        self.config, self.roi_align = config, roi_align
        self.resolved = {"max_detections": config.max_detections, "score": config.score}

    def prepare(self, image: Any) -> Any:
        return image

    def predict(self, pictures: Any) -> list[Instances]:
        masks = Masks.from_coco([mask_rle()], (20, 30))
        label, score = np.array([1], np.int32), np.array([0.9], np.float32)
        return [Instances((20, 30), masks.boxes(), label, score, masks) for _ in pictures]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[FindsTheSquare]:
    """The stand-ins that the command opened."""
    from segcli.prediction import loading

    models: list[FindsTheSquare] = []

    def open_predictor(config: Any, roi_align: str) -> FindsTheSquare:
        models.append(FindsTheSquare(config, roi_align))
        return models[-1]

    monkeypatch.setattr(loading, "open_predictor", open_predictor)
    return models


def test_model(
    truth: Path,
    opened: list[FindsTheSquare],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A model is run in fp32 with as many detections as are counted, and what it resolved to is saved."""
    out = tmp_path / "scores"
    arguments = ["--max-dets", "60", "--score", "0.2", "--output", str(out), "--json"]
    assert main(["eval", str(truth), "--model", "m.safetensors", *arguments]) == 0
    assert json.loads(capsys.readouterr().out)["mask"]["AP"] == pytest.approx(1)
    config = opened[0].config
    assert (config.model, config.precision, config.max_detections, config.score) == (
        "m.safetensors",
        "fp32",
        60,
        0.2,
    )
    assert opened[0].roi_align == "auto"
    saved = tomllib.loads((out / "config.toml").read_text())
    assert saved["resolved"] == {"max_detections": 60, "score": 0.2}
    assert saved["settings"]["model"] == "m.safetensors"


@pytest.mark.usefixtures("opened")
@pytest.mark.parametrize("damage", [pytest.param("absent"), pytest.param("damaged")])
def test_unreadable_pictures_give_exit_code_3(
    truth: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    """The rest is measured; the picture is counted, and its object is a miss."""
    file = truth.parent / "b.png"
    file.unlink()
    if damage == "damaged":
        file.write_bytes(b"no picture")
    assert main(["eval", str(truth), "--model", "m.safetensors", "--json"]) == 3
    out, err = capsys.readouterr()
    data = json.loads(out)
    assert data["counts"]["failed_pictures"] == 1
    assert data["box"]["AP"] == pytest.approx(51 / 101)
    assert "1 of 2 pictures cannot be used" in err


def test_all_crowds(truth: Path, predictions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A dataset of crowds only is refused with the flag that helps, and the flag helps."""
    table = json.loads(truth.read_text())
    for annotation in table["annotations"]:
        annotation["iscrowd"] = 1
    truth.write_text(json.dumps(table))
    arguments = ["eval", str(truth), "--predictions", str(predictions)]
    assert main(arguments) == 1
    assert "--crowd-as-instance" in capsys.readouterr().err
    assert main([*arguments, "--crowd-as-instance", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["box"]["AP"] == pytest.approx(51 / 101)


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    """Help has an example, and fp32 as the default precision."""
    assert main(["eval", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "segcli eval data/val.json --model" in text
    assert "Arithmetic of the network. [default: fp32]" in text


def test_real_files(shared: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    """The fake results of cocoapi, through the command: the printed numbers to three decimals."""
    folder = shared("data/eval_parity")
    lines = (folder / "val2014_fake_eval_res.txt").read_text().splitlines()
    printed = [float(line.rsplit("=", 1)[1]) for line in lines if " Average " in line]
    truth = str(folder / "instances_val2014_100.json")
    for kind, name, numbers in (("segm", "mask", printed[:12]), ("bbox", "box", printed[12:24])):
        file = str(folder / f"instances_val2014_fake{kind}100_results.json")
        assert main(["eval", truth, "--predictions", file, "--json"]) == 0
        data = json.loads(capsys.readouterr().out)
        assert [round(value, 3) for value in data[name].values()] == numbers
        assert (data["mask"] is None) == (kind == "bbox")
