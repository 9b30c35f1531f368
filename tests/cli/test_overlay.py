"""`segcli overlay` as a user types it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from segcli.categories import Categories
from segcli.cli.main import main
from segcli.config import PredictConfig
from segcli.instances import Instances
from segcli.masks import Masks
from segcli.prediction.facts import JobFacts

SIZE = (48, 64)


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs in a folder of its own."""
    monkeypatch.chdir(tmp_path)


def write_video(path: Path, frames: int = 6) -> None:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.height, stream.width = SIZE
        stream.pix_fmt = "yuv420p"
        for number in range(frames):
            array = np.full((*SIZE, 3), 40 + 10 * (number % 9), np.uint8)
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def frame_count(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


class Model:
    """Finds one object on every frame."""

    categories = Categories.from_names(["thing"])
    batch_size = 1

    def prepare(self, image: np.ndarray) -> tuple[int, int]:
        return image.shape[:2]

    def predict(self, pictures: list[tuple[int, int]]) -> list[Instances]:
        time.sleep(0.02 * len(pictures))
        mask = np.zeros((1, *SIZE), bool)
        mask[0, 10:30, 10:40] = True
        masks = Masks.from_dense(mask)
        row = np.zeros(1, np.int32), np.array([0.9], np.float32), masks
        return [Instances(SIZE, masks.boxes(), *row) for _ in pictures]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[PredictConfig, str]]:
    """Put a small model in the place of the real one; the settings that it was opened with."""
    calls: list[tuple[PredictConfig, str]] = []
    module: Any = ModuleType("segcli.prediction.loading")

    def open_predictor(config: PredictConfig, roi_align: str, *, facts: JobFacts) -> Model:
        assert facts.first(3)[0].shape == (*SIZE, 3)
        calls.append((config, roi_align))
        return Model()

    module.open_predictor = open_predictor
    monkeypatch.setitem(sys.modules, "segcli.prediction.loading", module)
    return calls


def test_video_with_a_model_and_again_from_its_predictions(
    opened: list[tuple[PredictConfig, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """A model's video, and the same video from the saved predictions; settings reach the model."""
    write_video(Path("in.mp4"))
    first = [
        "overlay",
        "video",
        "in.mp4",
        "--model",
        "run",
        "--output",
        "a.mp4",
        "--save-predictions",
        "p.json",
    ]
    assert (
        main(
            [*first, "--score", "0.3", "--min-size", "320", "--batch-size", "2", "--device", "cpu"]
        )
        == 0
    )
    config, roi_align = opened[0]
    assert (config.model, config.score, config.min_size, config.batch_size) == ("run", 0.3, 320, 2)
    assert (config.device, roi_align) == ("cpu", "auto")
    assert "6 frames written to a.mp4" in capsys.readouterr().err
    assert main(["overlay", "video", "in.mp4", "--predictions", "p.json", "--output", "b.mp4"]) == 0
    assert Path("a.mp4").read_bytes() == Path("b.mp4").read_bytes()
    assert main(["overlay", "video", "in.mp4", "--predictions", "p.json", "--output", "b.mp4"]) == 1
    assert "--overwrite" in capsys.readouterr().err
    again = [
        "overlay",
        "video",
        "in.mp4",
        "--predictions",
        "p.json",
        "--output",
        "b.mp4",
        "--overwrite",
    ]
    assert main([*again, "--style", "outline", "--color-by", "instance", "--no-labels"]) == 0
    assert Path("a.mp4").read_bytes() != Path("b.mp4").read_bytes()


def test_profile_of_a_video(opened: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    """A row per stage over all frames, with a model and without; only where it is asked for."""
    write_video(Path("in.mp4"))
    flags = ["--model", "run", "--output", "a.mp4", "--save-predictions", "p.json"]
    assert main(["overlay", "video", "in.mp4", *flags, "--profile"]) == 0
    said = capsys.readouterr().err
    assert "Profile of 6 frames" in said
    for stage in ("decode", "prepare", "model", "draw", "encode"):
        row = next(line for line in said.splitlines() if line.startswith(f"│ {stage} "))
        assert row.split("│")[2].strip() == "6"
    flags = ["--predictions", "p.json", "--output", "b.mp4"]
    assert main(["overlay", "video", "in.mp4", *flags, "--profile"]) == 0
    said = capsys.readouterr().err
    assert "Profile of 6 frames" in said
    assert "│ model " not in said
    assert main(["overlay", "video", "in.mp4", *flags, "--overwrite"]) == 0
    assert "Profile" not in capsys.readouterr().err


def test_part_of_a_video(opened: list[Any]) -> None:
    """--start and --end take seconds and HH:MM:SS."""
    write_video(Path("in.mp4"), 50)
    part = ["--start", "0:00:01", "--end", "1.5", "--every", "3"]
    assert main(["overlay", "video", "in.mp4", "--model", "m", "--output", "a.mkv", *part]) == 0
    assert frame_count(Path("a.mkv")) == 13


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        pytest.param([], 2, "neither of --model and --predictions", id="no-model"),
        pytest.param(["--model", "m", "--predictions", "in.mp4"], 2, "both of --model", id="both"),
        pytest.param(
            ["--predictions", "in.mp4", "--every", "2"], 2, "--every needs --model", id="every"
        ),
        pytest.param(
            ["--predictions", "in.mp4", "--score", "0.8"], 2, "--draw-score hides", id="score"
        ),
        pytest.param(
            ["--predictions", "in.mp4", "--cpu-engine", "torch"],
            2,
            "--cpu-engine needs",
            id="engine",
        ),
        pytest.param(
            ["--predictions", "in.mp4", "--save-predictions", "p"],
            2,
            "--save-predictions needs",
            id="save",
        ),
        pytest.param(["--predictions", "in.mp4"], 1, "not a JSON file", id="no-json"),
        pytest.param(["--model", "m", "--start", "soon"], 2, "time 'soon'", id="no-time"),
        pytest.param(
            ["--model", "m", "--start", "2", "--end", "1"], 2, "is not after", id="backwards"
        ),
        pytest.param(["--model", "m", "--color-by", "track"], 2, "'track'", id="track"),
        pytest.param(["--model", "m", "--opacity", "2"], 2, "opacity", id="opacity"),
    ],
)
def test_wrong_requests_are_one_line(
    arguments: list[str], code: int, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each wrong request gives its exit code and one line, and no output."""
    write_video(Path("in.mp4"))
    assert main(["overlay", "video", "in.mp4", "--output", "out.mp4", *arguments]) == code
    error = capsys.readouterr().err
    assert reason in error
    assert error.count("\n") == 1
    assert not Path("out.mp4").exists()


def test_int8_is_calibrated_on_the_video(capsys: pytest.CaptureFixture[str]) -> None:
    """On a frame for every second of what is drawn."""
    pytest.importorskip("openvino", reason="openvino is not installed")
    pytest.importorskip("nncf", reason="nncf is not installed")
    write_video(Path("in.mp4"), 60)
    flags = ["--model", "nano-nuclei", "--precision", "int8", "--device", "cpu"]
    flags += ["--start", "0.1", "--every", "20"]
    assert main(["overlay", "video", "in.mp4", *flags, "--output", "out.mp4"]) == 0
    assert "int8 calibrated on 3 pictures" in capsys.readouterr().err


@pytest.mark.parametrize("source", ["gone.mp4", "folder", "text.mp4"])
def test_inputs_that_are_no_video(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An absent file, a folder and a text file give one line and code 1."""
    Path("folder").mkdir()
    Path("text.mp4").write_text("hello")
    assert main(["overlay", "video", source, "--model", "m", "--output", "out.mp4"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"segcli: {source}: ")
    assert error.count("\n") == 1


def test_damaged_video_exits_3(
    opened: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A video with packets that cannot be decoded is written, said, and gives exit code 3."""
    write_video(Path("in.mp4"))
    from segcli.overlay.video_in import VideoInput

    decoded = VideoInput._decoded

    def damaged(self: VideoInput) -> Any:
        self.damaged += 2
        return decoded(self)

    monkeypatch.setattr(VideoInput, "_decoded", damaged)
    assert main(["overlay", "video", "in.mp4", "--model", "m", "--output", "out.mp4"]) == 3
    assert "2 damaged packets were left out" in capsys.readouterr().err


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupt_leaves_no_half_file(tmp_path: Path, sent: signal.Signals, code: int) -> None:
    """Ctrl-C and SIGTERM stop at once, with their exit codes, and remove the partial file."""
    write_video(tmp_path / "in.mp4", 400)
    script = (
        "import sys, types, importlib.util\n"
        f"spec = importlib.util.spec_from_file_location('fakes', {__file__!r})\n"
        "fakes = importlib.util.module_from_spec(spec); spec.loader.exec_module(fakes)\n"
        "module = types.ModuleType('segcli.prediction.loading')\n"
        "module.open_predictor = lambda config, roi_align, facts: fakes.Model()\n"
        "sys.modules['segcli.prediction.loading'] = module\n"
        "sys.argv = ['segcli', 'overlay', 'video', 'in.mp4', '--model', 'm', '--output', 'out/o.mp4',\n"
        "            '--save-predictions', 'out/p.json']\n"
        "from segcli.cli.main import run; run()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob("out/.o*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    os.kill(process.pid, sent)
    _, error = process.communicate(timeout=30)
    assert process.returncode == code
    assert error.count("\n") == 1
    assert list((tmp_path / "out").iterdir()) == []


def write_dataset() -> None:
    Path("photos").mkdir()
    rle = Model().predict([SIZE])[0].masks
    assert rle is not None
    row = {"category_id": 1, "score": 0.9, "bbox": [10, 10, 30, 20], "segmentation": rle.coco(0)}
    images = []
    for number, name in enumerate(("a.png", "b.jpg", "bad.png"), 1):
        Image.new("RGB", (SIZE[1], SIZE[0]), (90, 90, 90)).save(Path("photos") / name)
        images.append({"id": number, "file_name": name, "height": SIZE[0], "width": SIZE[1]})
    Path("photos/bad.png").write_bytes(b"broken")
    annotations = [{**row, "id": n, "image_id": n} for n in (1, 2, 3)]
    data = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "thing"}],
    }
    Path("p.json").write_text(json.dumps(data))


def test_folder(capsys: pytest.CaptureFixture[str]) -> None:
    """Good pictures are drawn, the bad one is in failed.jsonl, the exit code is 3, and the settings are kept."""
    write_dataset()
    arguments = ["overlay", "folder", "photos", "--predictions", "p.json", "--output", "out"]
    assert main([*arguments, "--opacity", "0.8"]) == 3
    assert "2 pictures drawn into out; 1 failed, see out/failed.jsonl" in capsys.readouterr().err
    assert (np.asarray(Image.open("out/a.png"))[20, 25] != 90).any()
    assert [json.loads(r)["file"] for r in Path("out/failed.jsonl").read_text().splitlines()] == [
        "bad.png"
    ]
    saved = tomllib.loads(Path("out/config.toml").read_text())
    assert (saved["command"], saved["settings"]["opacity"]) == ("overlay folder", 0.8)
    assert main(arguments) == 1
    assert main([*arguments, "--overwrite", "--config", "out/config.toml"]) == 3
    assert tomllib.loads(Path("out/config.toml").read_text())["settings"]["opacity"] == 0.8


def test_image(capsys: pytest.CaptureFixture[str]) -> None:
    """Single files are drawn; an OUT folder is as good as a file."""
    write_dataset()
    Path("run").mkdir()
    Path("p.json").rename("run/predictions.json")
    arguments = ["overlay", "image", "photos/a.png", "photos/b.jpg", "--predictions", "run"]
    assert main([*arguments, "--output", "out"]) == 0
    assert Path("out/b.jpg").is_file()
    assert "2 pictures drawn into out" in capsys.readouterr().err


def test_image_without_files(capsys: pytest.CaptureFixture[str]) -> None:
    """No file at all is wrong usage."""
    assert main(["overlay", "image", "--predictions", ".", "--output", "out"]) == 2
    assert "FILE" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["folder", "image", "video"])
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command explains itself with an example."""
    assert main(["overlay", command, "--help"]) == 0
    assert f"segcli overlay {command} " in capsys.readouterr().out
