"""`segcli predict folder|image`: flags, files, exit codes, messages."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segcli.cli.main import main

FAKE = Path(__file__).parents[1] / "prediction" / "fake_job.py"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The predictor without a network stands in for the real one."""
    spec = importlib.util.spec_from_file_location("fake_job", FAKE)
    assert spec is not None
    assert spec.loader is not None
    fake = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fake)
    monkeypatch.setitem(sys.modules, "segcli.prediction.loading", fake.module())


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three pictures in two folders."""
    root = tmp_path / "photos"
    (root / "sub").mkdir(parents=True)
    for i, name in enumerate(("a.png", "b.jpg", "sub/c.png")):
        pixels = np.full((20 + i, 30, 3), 20, np.uint8)
        pixels[4:12, 5:20, i] = 250
        Image.fromarray(pixels).save(root / name)
    return root


@pytest.fixture
def predict(photos: Path, tmp_path: Path) -> Callable[..., int]:
    """Runs `segcli predict folder photos --output out` with more flags; the exit code."""

    def run(*flags: str) -> int:
        given = ["predict", "folder", str(photos), "--output", str(tmp_path / "out")]
        return main([*given, "--model", "m", "--score", "0", *flags])

    return run


def file_names(out: Path) -> list[str]:
    data = json.loads((out / "predictions.json").read_bytes())
    return [image["file_name"] for image in data["images"]]


def test_all_outputs(
    predict: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every file of the contract appears; the summary is on stderr, nothing on stdout."""
    assert predict("--overlays", "--masks", "--csv", "--draw-score", "0.01") == 0
    out = tmp_path / "out"
    expected = ["config.toml", "counts.csv", "failed.jsonl", "instances.csv", "masks", "overlays"]
    expected += ["plan.jsonl", "predictions.json", "shards"]
    assert [p.name for p in sorted(out.iterdir()) if not p.name.startswith(".")] == expected
    assert file_names(out) == ["a.png", "b.jpg", "sub/c.png"]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("3 pictures done, ")
    assert captured.err.rstrip().endswith(f"results in {out}")


def test_exit_3_where_pictures_fail(
    predict: Callable[..., int], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A broken picture is listed with its reason, all others are done."""
    (photos / "broken.png").write_bytes(b"")
    assert predict() == 3
    assert "1 failed (see failed.jsonl)" in capsys.readouterr().err
    row = json.loads((tmp_path / "out" / "failed.jsonl").read_text())
    assert row["file"] == "broken.png"
    assert row["error"]


def test_flags_reach_the_job(predict: Callable[..., int], photos: Path, tmp_path: Path) -> None:
    """--no-recursive, --limit and --no-coco-json do what they say."""
    assert predict("--no-recursive") == 0
    assert file_names(tmp_path / "out") == ["a.png", "b.jpg"]
    assert predict("--overwrite", "--limit", "1") == 0
    assert file_names(tmp_path / "out") == ["a.png"]
    assert predict("--no-coco-json") == 0
    assert not (tmp_path / "out" / "predictions.json").exists()
    for path in (photos / "sub").iterdir():
        path.unlink()
    assert predict() == 1
    assert predict("--drop-vanished") == 0
    assert file_names(tmp_path / "out") == ["a.png", "b.jpg"]


def test_dry_run(
    predict: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dry run answers on stdout and writes nothing."""
    assert predict("--dry-run", "--batch-size", "2") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("pictures: 3 (")
    assert lines[1] == "to run: 3 in 2 batches"
    assert not (tmp_path / "out").exists()


def test_config_file(predict: Callable[..., int], photos: Path, tmp_path: Path) -> None:
    """Settings come from a saved config.toml; a flag wins over them."""
    assert predict("--classes", "red,blue", "--batch-size", "2") == 0
    saved = tmp_path / "out" / "config.toml"
    again = ["predict", "folder", str(photos), "--config", str(saved), "--output"]
    assert main([*again, str(tmp_path / "second")]) == 0
    assert (tmp_path / "second" / "config.toml").read_bytes() == saved.read_bytes()
    assert main([*again, str(tmp_path / "third"), "--classes", "red"]) == 0
    assert 'classes = [\n    "red",\n]' in (tmp_path / "third" / "config.toml").read_text()


def test_other_settings_exit_2(
    predict: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """A resume with another score is refused in one line that shows both."""
    assert predict("--limit", "1") == 0
    capsys.readouterr()
    assert predict("--score", "0.3") == 2
    message = capsys.readouterr().err
    assert "score: was 0.0, now 0.3" in message
    assert len(message.splitlines()) == 1


def test_single_files(photos: Path, tmp_path: Path) -> None:
    """`predict image` names results from the deepest common folder."""
    out = tmp_path / "out"
    files = [str(photos / "sub" / "c.png"), str(photos / "a.png")]
    assert main(["predict", "image", *files, "--model", "m", "--output", str(out), "--masks"]) == 0
    assert file_names(out) == ["a.png", "sub/c.png"]
    assert (out / "masks" / "sub" / "c.png.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        pytest.param(["folder", "gone"], 2, "'gone' does not exist", id="no folder"),
        pytest.param(["folder", "photos/a.png"], 2, "is a file", id="a file for a folder"),
        pytest.param(["image", "photos"], 2, "is a directory", id="a folder for a file"),
        pytest.param(["image", "gone.png"], 2, "'gone.png' does not exist", id="no file"),
        pytest.param(["image"], 2, "Missing argument", id="nothing"),
        pytest.param(["folder", "photos", "--score", "2"], 2, "0<=x<=1", id="score"),
        pytest.param(["folder", "photos", "--limit", "0"], 2, "x>=1", id="limit"),
        pytest.param(["folder", "photos", "--output", "photos"], 2, "is the input", id="out = dir"),
        pytest.param(["folder", "empty"], 2, "no pictures in it", id="empty"),
        pytest.param(["folder", "photos", "--output", "mine"], 1, "is not empty", id="foreign"),
    ],
)
def test_refusals_are_one_line(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    """Wrong requests name what is wrong, and touch nothing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    given = ["predict", *arguments, "--model", "m"]
    assert main(given if "--output" in given else [*given, "--output", "out"]) == code
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("command", [[], ["folder"], ["image"]])
def test_help_has_an_example_and_needs_no_torch(command: list[str]) -> None:
    """Help is quick: torch is not imported for it."""
    code = (
        "import sys; from segcli.cli.main import main; "
        f"code = main({['predict', *command, '--help']!r}); "
        "sys.exit(code or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "Example:" in done.stdout


def test_profile(
    predict: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table comes on stderr only where it is asked for, -q or not, and the flag may change between starts."""
    assert predict("--limit", "1") == 0
    assert "Profile" not in capsys.readouterr().err
    assert predict("--profile", "-q") == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Profile of 2 pictures")
    assert "CPU seconds of all stages" in err.splitlines()[-1]
    assert file_names(tmp_path / "out") == ["a.png", "b.jpg", "sub/c.png"]


def test_decoding_on_a_gpu_needs_one(
    predict: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 2 in one line; cpu, which auto stands for, is fine."""
    assert predict("--device", "cpu", "--decode", "nvjpeg") == 2
    said = capsys.readouterr().err
    assert "--decode nvjpeg needs a CUDA device" in said
    assert said.count("\n") == 1
    assert predict("--decode", "cpu", "--overwrite") == 0


@pytest.mark.parametrize("flag", ["--score", "--draw-score", "--overlap"])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_what_is_no_number_is_refused(
    flag: str, value: str, predict: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """NaN is within every range, as ranges are commonly tested."""
    assert predict(flag, value) == 2
    said = capsys.readouterr().err
    assert flag in said
    assert value in said
    assert said.count("\n") == 1
