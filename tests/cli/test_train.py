"""`segcli train` as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segcli.cli.main import main

QUICK = (
    "--model", "mask-rcnn-nano", "--batch-size", "1", "--min-size", "64", "--max-size", "96",
    "--workers", "0", "--device", "cpu",
)  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two pictures with a square each."""
    (tmp_path / "train").mkdir()
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(2):
        pixels = rng.integers(0, 80, (64, 96, 3), dtype=np.uint8)
        pixels[10:40, 20:50] = 230
        Image.fromarray(pixels).save(tmp_path / "train" / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "height": 64, "width": 96})
        annotations.append(
            {
                "id": i + 1, "image_id": i, "category_id": 1, "iscrowd": 0, "area": 900,
                "bbox": [20, 10, 30, 30], "segmentation": [[20, 10, 50, 10, 50, 40, 20, 40]],
            }
        )  # fmt: skip
    path = tmp_path / "train.json"
    categories = [{"id": 1, "name": "square"}]
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return path


def test_train_eval_and_predict_with_the_run(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The main job: `--model RUN` works in the other commands; stdout names the weights."""
    run = tmp_path / "run"
    assert (
        main(
            ["train", str(data), "--val", str(data), "--output", str(run), "--epochs", "1", *QUICK]
        )
        == 0
    )
    out, err = capsys.readouterr()
    assert str(run / "best.safetensors") in out
    assert "mask AP" in out
    assert "pictures are taken from" in err
    assert "2 steps of 1, adamw" in err
    assert main(["eval", str(data), "--model", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mask"]["AP"] is not None
    command = ["predict", "folder", str(tmp_path / "train"), "--model", str(run), "--output"]
    assert main([*command, str(tmp_path / "out")]) == 0
    table = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [i["file_name"] for i in table["images"]] == ["0.png", "1.png"]
    assert table["categories"] == [{"id": 1, "name": "square"}]


def test_settings_come_from_a_saved_config(data: Path, tmp_path: Path) -> None:
    """A run's config.toml repeats the run; flags win over it."""
    first, second = tmp_path / "a", tmp_path / "b"
    assert (
        main(["train", str(data), "--output", str(first), "--steps", "1", "--seed", "5", *QUICK])
        == 0
    )
    assert (
        main(["train", str(data), "--output", str(second), "--config", str(first / "config.toml")])
        == 0
    )
    assert (first / "best.safetensors").read_bytes() == (second / "best.safetensors").read_bytes()
    third = tmp_path / "c"
    again = ["train", str(data), "--output", str(third), "--config", str(first / "config.toml")]
    assert main([*again, "--seed", "6"]) == 0
    assert (first / "best.safetensors").read_bytes() != (third / "best.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        pytest.param(["absent.json"], 2, "absent.json", id="no dataset"),
        pytest.param(
            ["{data}", "--model", "nano"],
            2,
            "no such file, RUN folder or named weights",
            id="model",
        ),
        pytest.param(
            ["{data}", "--augment", "mosaic"], 2, "expected some of flip, scale", id="augment"
        ),
        pytest.param(["{data}", "--resume", "--overwrite"], 2, "give one of them", id="both"),
        pytest.param(
            ["{data}", "--epochs", "2"], 2, "found both --epochs and --steps", id="length"
        ),
        pytest.param(["{data}", "--device", "cuda:7"], 2, "--device cuda:7", id="device"),
        pytest.param(["{data}", "--min-size", "900"], 2, "--max-size 96", id="sizes"),
        pytest.param(["{data}", "--lr", "0"], 2, "--lr", id="lr"),
        pytest.param(["{data}", "--lr", "nan"], 2, "nan is not a finite number", id="lr nan"),
        pytest.param(["{data}", "--clip", "inf"], 2, "inf is not a finite number", id="clip inf"),
        pytest.param(["{data}", "--ema", "2"], 2, "2.0 is not in the range 0<x<1", id="ema"),
        pytest.param(["{data}", "--freeze", "9"], 2, "'9' is not one of '0'", id="freeze"),
        pytest.param(["{data}", "--accumulate", "0"], 2, "--accumulate", id="accumulate"),
        pytest.param(["{data}", "--also", "absent.json"], 2, "absent.json: no such", id="also"),
        pytest.param(
            ["{data}", "--also-images", "."], 2, "found 1 --also-images for 0", id="also images"
        ),
        pytest.param(
            ["{data}", "--compile", "--checkpointing"],
            2,
            "found both --compile and --checkpointing",
            id="compile and checkpointing",
        ),
        pytest.param(
            ["{data}", "--compile"], 2, "--augment flip,scale gives many", id="compile many sizes"
        ),
        pytest.param(["{data}", "--patience", "2"], 2, "give --val DATASET", id="patience"),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: list[str], code: int, message: str, data: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Exit code 2, nothing of a run left behind but its lock."""
    run = tmp_path / "run"
    given = [a.format(data=data) for a in arguments]
    options = [*QUICK, *given[1:]]
    assert main(["train", given[0], "--output", str(run), "--steps", "1", *options]) == code
    err = capsys.readouterr().err.strip().splitlines()
    assert message in err[-1]
    assert err[-1].startswith("segcli: ")
    assert not run.exists() or {p.name for p in run.iterdir()} <= {".lock"}


def test_offline_the_default_model_says_what_to_do(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the network the one-line error names mask-rcnn-nano."""
    from dataclasses import replace

    from segcli import zoo

    row = replace(zoo.PUBLISHED[zoo.DEFAULT_WEIGHTS], address="http://127.0.0.1:9/x.pth")
    monkeypatch.setitem(zoo.PUBLISHED, zoo.DEFAULT_WEIGHTS, row)
    assert main(["train", str(data), "--output", str(tmp_path / "run")]) == 1
    assert "--model mask-rcnn-nano" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_runs_say_so_and_can_be_resumed(
    number: signal.Signals, code: int, data: Path, tmp_path: Path
) -> None:
    """Exit codes 130 and 143 with one line, and --resume goes on after the last epoch; with a worker process."""
    run = tmp_path / "run"
    command = [
        sys.executable, "-m", "segcli", "train", str(data), "--output", str(run), "--epochs", "500", *QUICK,
        "--workers", "1",
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while not (run / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in err
    assert "run it again with --resume" in err.strip().splitlines()[-1]
    where = command.index("--epochs")
    shorter = [*command[:where], "--steps", "1", *command[where + 2 :], "--resume"]
    assert subprocess.run(shorter, capture_output=True, check=False).returncode == 0


def test_the_batches_of_validation_are_a_setting_of_their_own(data: Path, tmp_path: Path) -> None:
    """Which may change at a resume."""
    run = tmp_path / "run"
    common = ["train", str(data), "--val", str(data), "--output", str(run), *QUICK]
    command = [*common, "--epochs", "1"]
    assert main([*command, "--eval-batch-size", "2"]) == 0
    assert tomllib.loads((run / "config.toml").read_text())["settings"]["eval_batch_size"] == 2
    assert main([*command, "--eval-batch-size", "1", "--resume"]) == 0
    assert main([*command, "--resume"]) == 0
    assert main([*command, "--eval-batch-size", "0", "--resume"]) == 2


def test_a_second_process_on_the_same_run_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """RUN is locked."""
    from segcli.files import folder_lock

    run = tmp_path / "run"
    with folder_lock(run):
        assert main(["train", str(data), "--output", str(run), "--steps", "1", *QUICK]) == 1
    assert "in use by another segcli process" in capsys.readouterr().err


def test_the_preview_needs_no_run(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pictures of batches, nothing else; a folder that holds something is left alone."""
    folder = tmp_path / "preview"
    command = ["train", str(data), "--preview", str(folder), *QUICK]
    assert main(command) == 0
    assert "2 pictures of training batches" in capsys.readouterr().out
    assert sorted(p.name for p in folder.iterdir()) == ["preview-000.png", "preview-001.png"]
    assert main(command) == 1
    assert "is not empty" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0


def test_a_run_needs_a_folder(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--output is only left out with --preview."""
    assert main(["train", str(data), *QUICK]) == 2
    assert "--output" in capsys.readouterr().err


def test_several_datasets(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--also joins classes by name."""
    table = json.loads(data.read_text())
    table["categories"][0]["name"] = "box"
    other = tmp_path / "other.json"
    other.write_text(json.dumps(table))
    arguments = [str(data), "--also", str(other), "--output", str(tmp_path / "run"), "--steps", "1"]
    (tmp_path / "other").symlink_to(tmp_path / "train")
    assert main(["train", *arguments, *QUICK]) == 0
    assert "4 pictures (0 without objects), 2 classes" in capsys.readouterr().err


def test_pictures_of_several_datasets(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--also-images goes with --also by order; where there are fewer, the rest are looked for near their datasets."""
    for name in ("b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.json").write_bytes(data.read_bytes())
    (tmp_path / "train").rename(tmp_path / "elsewhere")
    (tmp_path / "c" / "train").symlink_to(tmp_path / "elsewhere")
    also = [["--also", str(tmp_path / name / "train.json")] for name in ("b", "c")]
    arguments = [str(data), *also[0], *also[1], "--output", str(tmp_path / "run"), *QUICK]
    folder = str(tmp_path / "elsewhere")
    found = ["--images", folder, "--also-images", folder]
    assert main(["train", *arguments, *found, "--steps", "1"]) == 0
    assert "6 pictures (0 without objects), 1 classes" in capsys.readouterr().err


def test_a_restart_by_torchrun_goes_on_by_itself(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --resume, and without deleting anything where --overwrite was given at the start."""
    command = ["train", str(data), "--output", str(tmp_path / "run"), "--overwrite", *QUICK]
    assert main([*command, "--steps", "1"]) == 0
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert main([*command, "--steps", "2"]) == 0
    assert "resumed after epoch 0, step 1" in capsys.readouterr().err
