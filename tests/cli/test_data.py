"""`segcli data check` and `segcli data synth` as a user runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from segcli.cli.main import main

SQUARE = [2, 2, 10, 2, 10, 8, 2, 8]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """A dataset of one picture with the given changes to its good annotations, one each."""

    def make(*changes: dict[str, Any], name: str = "cell") -> Path:
        Image.new("RGB", (30, 20)).save(tmp_path / "1.png")
        good = {"image_id": 1, "category_id": 1, "segmentation": [SQUARE], "bbox": [2, 2, 8, 6]}
        good |= {"area": 48, "iscrowd": 0}
        rows = [{**good, "id": number, **change} for number, change in enumerate(changes, 1)]
        images = [{"id": 1, "file_name": "1.png", "height": 20, "width": 30}]
        table = {"images": images, "annotations": rows, "categories": [{"id": 1, "name": name}]}
        path = tmp_path / "a.json"
        path.write_text(json.dumps(table))
        return path

    return make


def test_all_is_well(write: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    """A clean dataset exits 0, with tables on stdout and the choice of folder on stderr."""
    assert main(["data", "check", str(write({}, {}))]) == 0
    printed = capsys.readouterr()
    assert "pictures are taken from" in printed.err
    assert "objects per picture: least / median / most" in printed.out
    assert "Problems" not in printed.out


def test_some_left_out(write: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    """Where something was left out the exit code is 3, and it is named with its place and remedy."""
    assert main(["data", "check", str(write({}, {"segmentation": []}, {"area": 0}))]) == 3
    printed = " ".join(capsys.readouterr().out.split())
    assert "no segmentation │ 1 │ left out" in printed
    assert "a.json: annotation 2 on 1.png: []; left out; a box alone has no mask" in printed
    assert "no area │ 1 │ kept" in printed


def test_only_repaired(write: Callable[..., Path]) -> None:
    """What was only repaired leaves the exit code 0."""
    assert main(["data", "check", str(write({"area": 0}))]) == 0


def test_nothing_usable(write: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    """Where nothing is left the tables are printed, the reason is one line, the exit code is 1."""
    path = str(write({"iscrowd": 1}))
    assert main(["data", "check", path]) == 1
    printed = capsys.readouterr()
    assert "most annotations are iscrowd" in printed.out
    assert "--crowd-as-instance" in printed.err.splitlines()[-1]
    assert main(["data", "check", path, "--crowd-as-instance"]) == 0


def test_json(write: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    """With --json stdout is one JSON object, whatever the exit code."""
    for changes, code in (([{}], 0), ([{}, {"image_id": 7}], 3), ([{"image_id": 7}], 1)):
        assert main(["data", "check", str(write(*changes)), "--json"]) == code
        table = json.loads(capsys.readouterr().out)
        assert table["pictures"] == 1
        assert table["left_out"] == (code != 0)


def test_pictures_elsewhere(
    write: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--images names the folder; without any picture the error says so, --no-pictures needs none."""
    path = str(write({}))
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "1.png").rename(tmp_path / "elsewhere" / "deep" / "1.png")
    assert main(["data", "check", path]) == 1
    assert "--images DIR" in capsys.readouterr().err.splitlines()[-1]
    assert main(["data", "check", path, "--images", str(tmp_path / "elsewhere")]) == 0
    assert main(["data", "check", path, "--no-pictures"]) == 0
    assert main(["data", "check", path, "--images", str(tmp_path / "absent")]) == 2


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        pytest.param(["data", "check"], 2, id="no-dataset"),
        pytest.param(["data", "check", "absent.json"], 2, id="absent"),
        pytest.param(["data", "check", "."], 2, id="empty-folder"),
        pytest.param(["data", "check", ".", "--what"], 2, id="unknown-flag"),
        pytest.param(["data", "sing"], 2, id="unknown-command"),
        pytest.param(["data", "synth", "out"], 2, id="no-number"),
        pytest.param(["data", "synth", "out", "--images", "1"], 2, id="too-few"),
        pytest.param(["data", "synth", "out", "--images", "2", "--seed", "-1"], 2, id="bad-seed"),
        pytest.param(["data", "synth", "out", "--images", "2", "--seed", str(2**64)], 2, id="vast"),
    ],
)
def test_wrong_usage(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
) -> None:
    """Wrong usage exits 2 with one line on stderr and nothing on stdout."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(arguments) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert printed.err.startswith("segcli: ")


@pytest.mark.parametrize("command", [[], ["check"], ["synth"]])
def test_help(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    """Every command has help with an example."""
    assert main(["data", *command, "--help"]) == 0
    assert "Example:\n    segcli data" in capsys.readouterr().out


def test_names_are_shown_not_obeyed(
    write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Control characters in names do not reach the terminal."""
    main(["data", "check", str(write({}, name="\x1b[2Jcell"))])
    printed = capsys.readouterr().out
    assert "\x1b[2J" not in printed
    assert "\\x1b[2Jcell" in printed


def test_many_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of many classes the commonest are printed and the rest summed; --json has all."""
    categories = [{"id": i, "name": f"c{i}"} for i in range(50)]
    annotation = {"image_id": 1, "segmentation": [SQUARE], "bbox": [2, 2, 8, 6], "area": 48}
    rows = [{**annotation, "id": i, "category_id": max(i, 30)} for i in range(50)]
    images = [
        {"id": i, "file_name": f"{i}.png", "height": 20 + i, "width": 30} for i in range(1, 6)
    ]
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"images": images, "annotations": rows, "categories": categories}))
    assert main(["data", "check", str(path), "--no-pictures"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "│ c30 │ 30 │ 31 │" in printed
    assert "10 rarer classes" in printed
    assert "pictures of 2 other sizes │ 2 │" in printed
    assert main(["data", "check", str(path), "--no-pictures", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["classes"]) == 50


def test_check_imports_no_torch(write: Callable[..., Path]) -> None:
    """A whole check, pictures included, runs without torch."""
    code = (
        "import sys; from segcli.cli.main import main; code = main(sys.argv[1:]);"
        "sys.exit(9 if 'torch' in sys.modules else code)"
    )
    command = [sys.executable, "-c", code, "data", "check", str(write({})), "--json"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0
    assert json.loads(done.stdout)["objects"] == 1


def test_synth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Synthetic scenes are a dataset without problems; the folder is not touched again without --overwrite."""
    out = tmp_path / "scenes"
    assert main(["data", "synth", str(out), "--images", "2", "--seed", "3"]) == 0
    printed = capsys.readouterr()
    assert "train" in printed.out
    assert "occluded" in printed.err
    before = (out / "val.json").read_bytes()
    for split in ("train", "val"):
        assert main(["data", "check", str(out / f"{split}.json")]) == 0
    assert main(["data", "synth", str(out), "--images", "2"]) == 1
    assert (out / "val.json").read_bytes() == before
    saved = str(out / "config.toml")
    assert main(["data", "synth", str(out), "--config", saved, "--overwrite"]) == 0
    assert (out / "val.json").read_bytes() == before
    assert main(["data", "synth", str(out), "--images", "2", "--overwrite"]) == 0
    assert (out / "val.json").read_bytes() != before
