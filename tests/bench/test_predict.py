"""A whole run, with contestants that are real and tiny, and with ones that only pretend."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from segcli.bench import predict_report, process
from segcli.bench.ours import OurJob, refuse_others
from segcli.bench.predict import Settings, run
from segcli.bench.predict_figures import Report, median_stages, paired_spread
from segcli.bench.predict_inputs import quick_pictures
from segcli.bench.predictors import CONTESTANTS, OURS, Task
from segcli.bench.results import read_results
from segcli.cli.main import main
from segcli.config import PredictConfig
from segcli.errors import DataError, PredictionError, UsageError
from segcli.prediction.walk import find_pictures
from segcli.zoo import COCO_91, new_model, save_model

TINY = Settings(
    contestants=("fp32",), min_size=64, max_size=96, repeat=1, quick=True, threads=1, device="cpu"
)

# a contestant that writes what it is told: one object on the first of two pictures, none on the second
FAKE = """
import json, os, pathlib, sys
rle = {"size": [4, 4], "counts": [4, 4, 8]}
boxes = json.loads(os.environ["FAKE_BOXES"])
count = 0
for line in sys.stdin:
    message = json.loads(line)
    if message["do"] == "open":
        name = message["contestant"]
        answer = {"pictures": 2, "seconds": 1.5}
        if name == "openvino-int8":
            answer = {"error": "OpenVINO is not installed", "usage": True}
        if name == "compile":
            print("the compiler fell over", file=sys.stderr)
            sys.exit(3)
        score = message["task"]["score"]
    elif message["do"] == "count":
        answer = {"trunk_gflop": 100.0}
    else:
        out = pathlib.Path(message["out"])
        out.mkdir(parents=True)
        row = {"image_id": 1, "category_id": 7, "bbox": boxes[name], "score": 0.75, "segmentation": rle}
        images = [{"id": i + 1, "file_name": f"{i}.png", "height": 4, "width": 4} for i in (0, 1)]
        whole = {"images": images, "categories": [{"id": 7, "name": "x"}],
                 "annotations": [{**row, "id": 1}] if score < 0.75 else []}
        if name == "stock":
            (out / "results.json").write_text(json.dumps(whole["annotations"]))
        else:
            (out / "predictions.json").write_text(json.dumps(whole))
        answer = {"seconds": {"stock": 4.0, "fp32": 2.0, "bf16": 1.0}[name] * (1 + count),
                  "stages": {"decode": 0.25, name: 0.5 + count}, "peak_bytes": 2**20, "gpu_peak_bytes": None,
                  "resolved": {"precision": "bf16" if name == "bf16" else "fp32", "max_detections": 100}}
        count += 1
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """Settings with which nothing real runs; each box is x, y, width, height."""
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-c", FAKE))
    box = [0.0, 1.0, 4.0, 1.0]
    monkeypatch.setenv("FAKE_BOXES", json.dumps(dict.fromkeys(("stock", "fp32", "bf16"), box)))
    return Settings(
        pictures=quick_pictures(tmp_path / "pictures"),
        model="m.safetensors",
        contestants=("bf16", "fp32", "openvino-int8"),
        scores=(0.05, 0.9),
        repeat=2,
        device="cpu",
        quick=True,
    )


@pytest.mark.slow
def test_real_contestants() -> None:
    """Stock and fp32 agree on real pictures, and every figure is there."""
    found = run(TINY)
    stock, ours = found.rows

    assert (stock.name, ours.name, found.absent) == ("stock", "fp32", {})
    assert (ours.ok, stock.ok, found.wrong) == (True, None, [])
    assert stock.detections == 10
    assert ours.comparison is not None
    assert ours.comparison.pairs + ours.comparison.excused >= 20
    assert {"decode", "backbone", "rpn", "roi_align", "rle", "rest"} <= stock.stages.keys()
    assert {"decode", "prepare", "model", "encode", "write", "rest"} <= ours.stages.keys()
    assert sum(stock.stages.values()) == pytest.approx(stock.time.median)
    assert all(row.peak_bytes is not None and row.peak_bytes > 2**28 for row in found.rows)
    assert all(row.share > 0 and row.first_s > 0 and row.open_s > 0 for row in found.rows)
    assert (ours.resolved["precision"], ours.resolved["threads"]) == ("fp32", 1)
    assert 1 < found.trunk_gflop < 10
    json.loads(predict_report.as_json(found))


def test_rows(pretend: Settings) -> None:
    """A row per contestant and score: the warm-up is not in the times, ratios are paired, per picture."""
    found = run(pretend)

    assert [(row.score, row.name) for row in found.rows] == [
        (score, name) for score in (0.05, 0.9) for name in ("stock", "fp32", "bf16")
    ]
    stock, fp32, bf16 = found.rows[:3]
    assert (fp32.time.median, fp32.time.rounds, fp32.first_s) == (2500, 2, 2)
    assert fp32.speedup is not None
    assert (fp32.speedup.median, fp32.speedup.p10, stock.speedup) == (2, 2, None)
    assert bf16.stages == {"decode": 125, "bf16": 1000}
    assert (stock.detections, fp32.detections, found.rows[3].detections) == (0.5, 0.5, 0)
    assert [row.ok for row in found.rows[:3]] == [None, True, None]
    assert bf16.comparison is not None
    assert (bf16.comparison.recall, bf16.comparison.mean_mask_iou) == (1, 1)
    assert (fp32.peak, bf16.peak) == ("fp32", "bf16")
    assert fp32.share == pytest.approx(100 / found.conv_peak["fp32"].gflop_per_s / 2.5)


def test_absent_ones_are_listed(
    pretend: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot run here is named with the reason, on stderr at once and under the table; the others run."""
    found = run(pretend)
    predict_report.show(found)
    out, err = capsys.readouterr()

    assert found.absent == {"openvino-int8": "OpenVINO is not installed"}
    assert "openvino-int8: cannot run here: OpenVINO is not installed\n" in err
    assert "left out: openvino-int8: OpenVINO is not installed\n" in out
    assert "nothing was compared" not in err


def test_nothing_found_is_said(pretend: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """Empty results are equal, and the user hears that this shows nothing."""
    found = run(replace(pretend, scores=(0.9,)))

    assert found.wrong == []
    assert "warning: stock found nothing" in capsys.readouterr().err


def test_a_death_ends_the_run(pretend: Settings) -> None:
    """One line names the contestant and what it said last."""
    with pytest.raises(PredictionError) as caught:
        run(replace(pretend, contestants=("compile",)))

    assert str(caught.value) == (
        "compile: its process ended with exit code 3 (the compiler fell over)"
    )


def test_json_and_tables(pretend: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """One object with machine, peaks and flat rows; and three tables per score."""
    found = run(pretend)
    read = json.loads(predict_report.as_json(found))

    assert (read["benchmark"], read["ok"], read["pictures"]) == ("predict", True, 2)
    assert read["versions"].keys() >= {"torch", "torchvision", "pycocotools", "Pillow"}
    assert read["conv_peak"].keys() == {"fp32", "bf16"}
    assert read["trunk_gflop_per_picture"] == 100
    row = read["rows"][1]
    assert (row["name"], row["score"], row["ok"], row["rounds"]) == ("fp32", 0.05, True, 2)
    assert (row["ms_per_picture_median"], row["speedup_median"]) == (2500, 2)
    assert row["pictures_per_s"] == pytest.approx(0.4)
    assert row["stages_ms_per_picture"] == {"decode": 125, "fp32": 1000}
    assert row["against_stock"]["equal"] is True
    assert {"missing", "extra", "moved", "masks_off", "box_px"} <= row["against_stock"].keys()
    assert read["rows"][0]["against_stock"] is None
    assert str(pretend.pictures) not in json.dumps(read)
    predict_report.show(found)
    out = capsys.readouterr().out
    assert out.count("the whole job") == out.count("stages, ms") == out.count("largest diff") == 2


def test_exit_codes(
    pretend: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1 where an fp32 contestant differs, which is said; a bf16 one may differ."""
    words = ["bench", "predict", str(pretend.pictures), "--model", "m", "--quick", "--repeat", "1"]
    words += ["--contestant", "fp32", "--contestant", "bf16"]
    box = [0.0, 1.0, 4.0, 1.0]
    boxes: dict[str, Any] = {"stock": box, "fp32": box, "bf16": [0.0, 1.0, 4.0, 1.5]}
    monkeypatch.setenv("FAKE_BOXES", json.dumps(boxes))
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True

    boxes["fp32"] = [0.0, 1.0, 4.0, 1.1]
    monkeypatch.setenv("FAKE_BOXES", json.dumps(boxes))
    assert main(words) == 1
    out, err = capsys.readouterr()
    assert "WRONG" in out
    assert (
        "warning: fp32 at score 0.05 does not equal stock: 0.png: 1 boxes or scores off (by up to 0.1 px, 0)"
        in err
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"contestants": ("tf",)}, "--contestant tf: expected one of stock, fp32, auto"),
        ({"device": "tpu"}, "--device tpu: expected auto, cpu"),
        ({"pictures": None, "quick": False}, "bench predict: PICTURES is missing; give a folder"),
        ({"model": None, "quick": False}, "bench predict: --model is missing; give a folder"),
    ],
)
def test_wrong_wishes(pretend: Settings, change: dict[str, Any], message: str) -> None:
    """Each is named, with what is expected."""
    with pytest.raises(UsageError, match=f"^{message}"):
        run(replace(pretend, **change))


def test_an_empty_folder(pretend: Settings, tmp_path: Path) -> None:
    """There is nothing to time."""
    (tmp_path / "empty").mkdir()

    with pytest.raises(UsageError, match="empty: no pictures in it"):
        run(replace(pretend, pictures=tmp_path / "empty"))


@pytest.mark.parametrize("name", OURS)
def test_settings_are_the_programs(name: str) -> None:
    """Each contestant is a configuration that the program knows."""
    assert PredictConfig(model="m", **OURS[name])
    assert name in CONTESTANTS


def test_our_job(tmp_path: Path) -> None:
    """Our contestant writes what `predict folder` writes; a picture that fails ends the comparison."""
    weights = tmp_path / "nano.safetensors"
    save_model(weights, new_model("mask-rcnn-nano", COCO_91, seed=0))
    folder = quick_pictures(tmp_path / "pictures")
    task = Task(str(folder), str(weights), 0.05, min_size=64, max_size=96)
    job = OurJob("fp32", task, find_pictures(folder))
    stages = job.run(tmp_path / "out")

    assert {"decode", "prepare", "model", "encode", "write"} <= stages.keys()
    assert len(read_results(tmp_path / "out", ["0.png", "1.png"])) == 2
    assert job.resolved["precision"] == "fp32"
    assert not {"conventions", "categories"} & job.resolved.keys()
    with pytest.raises(PredictionError, match=r"^2\.png: not among the results"):
        read_results(tmp_path / "out", ["0.png", "2.png"])

    (folder / "2.png").write_bytes(b"no picture")
    job = OurJob("fp32", task, find_pictures(folder))
    with pytest.raises(DataError, match=r"1 pictures cannot be used, the first is 2\.png \("):
        job.run(tmp_path / "second")


def test_a_contestant_that_runs_as_another_is_refused() -> None:
    """What a name promises has to run, or the contestant is absent."""
    plain = {"precision": "fp32", "compile": False, "cpu_engine": "torch"}
    refuse_others({"precision": "auto"}, plain)
    refuse_others(OURS["fp32"], {"precision": "fp32"})
    with pytest.raises(UsageError, match="cpu_engine openvino was asked for, but torch is what"):
        refuse_others({"cpu_engine": "openvino"}, {"precision": "fp32"})
    with pytest.raises(UsageError, match="precision int8 was asked for, but bf16 is what runs"):
        refuse_others(OURS["openvino-int8"], {**plain, "precision": "bf16"})


def test_figures() -> None:
    """Ratios are of the same round; a stage that a round lacks took no time in it."""
    ratio = paired_spread([2.0, 40.0, 3.0], [1.0, 10.0, 1.0])
    assert (ratio.median, ratio.rounds) == (3, 3)
    assert median_stages([{"a": 1.0, "b": 2.0}, {"a": 3.0}], 2) == {"a": 1000, "b": 500}
    assert median_stages([], 2) == {}
    assert Report({}, "cpu", "m").wrong == []
