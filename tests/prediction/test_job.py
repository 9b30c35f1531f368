"""Jobs end to end with a predictor without a network: results, files, refusals."""

from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from segcli.config import DrawConfig, PredictConfig
from segcli.errors import DataError, OutputError, UsageError
from segcli.files import folder_lock
from segcli.images import image_info
from segcli.prediction import shards
from segcli.prediction.job import dry_run, file_inputs, folder_inputs, predict_job
from segcli.prediction.plan import read_plan
from segcli.prediction.walk import natural_key

GOOD = ["a/x.png", "a/y.webp", "a/z.gif", "b/1.bmp", "b/2.ppm", "b/3.tif", "c d.png"]
GOOD += ["p1.png", "p2.jpg", "p10.png"]


def test_a_whole_job(start: Any) -> None:
    """Good pictures are exported in natural order, the broken one is listed, the exit code is 3."""
    report = start()
    assert start.names() == GOOD
    assert list(start.failed()) == ["b/broken.png"]
    assert (report.good, report.failed, report.left, report.ran) == (10, 1, 0, 11)
    assert report.exit_code == 3
    assert report.objects == len(json.loads(start.predictions())["annotations"]) > 0
    line = report.line(start.out)
    assert line.startswith("10 pictures done, 1 failed (see failed.jsonl), ")
    assert "11 run in" in line
    assert sorted(p.name for p in start.out.iterdir()) == [
        ".lock",
        "config.toml",
        "failed.jsonl",
        "plan.jsonl",
        "predictions.json",
        "shards",
    ]


def test_batch_mates_matter(start: Any) -> None:
    """The fake model is a fair stand-in: other batches give other bytes, so equal bytes below mean something."""
    start()
    first = start.predictions()
    start(PredictConfig(model="m", batch_size=2), overwrite=True)
    assert start.predictions() != first


def test_batches_hold_pictures_of_one_orientation(start: Any) -> None:
    """By their headers, upright; one whose header cannot be read is no obstacle, and the order of rows stays."""
    for name, size in (("a1.png", (8, 40)), ("a2.png", (40, 8)), ("a3.png", (8, 40))):
        Image.new("RGB", size).save(start.photos / name)
    start(PredictConfig(model="m", batch_size=2))
    kinds: dict[int, list[bool]] = {}
    for key, row in read_plan(start.out).current.items():
        if key != "b/broken.png":
            height, width = image_info(start.photos / key).size
            kinds.setdefault(row.batch, []).append(height > width)
    assert all(len(set(batch)) == 1 for batch in kinds.values())
    assert {batch[0] for batch in kinds.values()} == {True, False}
    assert start.names() == sorted([*GOOD, "a1.png", "a2.png", "a3.png"], key=natural_key)


def test_output_in_the_folder(start: Any) -> None:
    """OUT inside DIR is no input, not even the overlays in it."""
    start.out = start.photos / "results"
    start(overlays=True, masks=True)
    assert start.names() == GOOD
    assert start().ran == 0


def test_empty_folder_and_refusals_leave_nothing(start: Any, tmp_path: Path) -> None:
    """No pictures, or a model that cannot be opened: an error before OUT is made."""
    shutil.rmtree(start.photos)
    start.photos.mkdir()
    with pytest.raises(UsageError, match=r"no pictures in it; looked for files that end in \.bmp"):
        start()
    assert not start.out.exists()
    with pytest.raises(UsageError, match="is the input itself"):
        start(output=start.photos)


def test_unwritable_place(start: Any, tmp_path: Path) -> None:
    """An output that cannot be made is one line."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be made"):
        start(output=tmp_path / "file" / "out")


def test_a_second_process_is_refused(start: Any) -> None:
    """While OUT is held nobody else writes there."""
    start()
    with folder_lock(start.out), pytest.raises(OutputError, match="in use by another segcli"):
        start()


def test_another_commands_output(start: Any) -> None:
    """`predict image` does not go on with what `predict folder` began, unless it is to be overwritten."""
    start()
    with pytest.raises(OutputError, match="`segcli predict folder` made"):
        start(command="predict image")
    assert start(command="predict image", overwrite=True).good == 10


def test_drawings_without_a_model(start: Any) -> None:
    """Drawing flags may change from start to start; drawings come from shards, not from the model."""
    start()
    style = DrawConfig(draw_score=0.2)
    start(overlays=True, masks=True, csv=True, draw=style)
    assert start.opened == []
    assert sorted(p.name for p in (start.out / "masks" / "a").iterdir()) == [
        "x.png.png",
        "y.webp.png",
        "z.gif.png",
    ]
    assert (start.out / "overlays" / "a" / "z.gif.png").is_file()
    counts = (start.out / "counts.csv").read_text().splitlines()
    assert counts[0] == "file,red,'=green,blue,total"
    assert len(counts) == 11


def test_a_picture_that_cannot_be_drawn(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stands in failed.jsonl beside those that could not be predicted."""
    from segcli.overlay import render

    def fail(*_: Any) -> None:
        raise DataError("no paint")

    start()
    monkeypatch.setattr(render, "draw_instances", fail)
    report = start(overlays=True)
    assert report.failed == 11
    assert start.failed()["p1.png"] == "overlays: no paint"


def test_coco_json_can_be_left_out(start: Any) -> None:
    """Without predictions.json the shards hold all."""
    start(coco_json=False)
    assert not (start.out / "predictions.json").exists()
    assert len(list(shards.latest_rows(start.out))) == 11


def test_unreadable_folders_are_failures(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that cannot be listed is named among the failures, and the rest is done."""
    scan = os.scandir

    def scandir(path: Path) -> Any:
        if Path(path).name == "a":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert start().good == 7
    assert start.failed()["a/"] == "cannot list this folder (Permission denied)"


def test_names_that_are_no_utf8(start: Any) -> None:
    """A file whose name is no UTF-8 is predicted, exported and drawn under its escaped name."""
    raw = os.fsencode(start.photos) + b"/caf\xe9.png"
    shutil.copyfile(start.photos / "p1.png", raw)
    start(overlays=True, masks=True, csv=True)
    assert "caf\\xe9.png" in start.names()
    assert (start.out / "overlays" / "caf\\xe9.png").is_file()
    assert start().ran == 0


def test_dry_run_writes_nothing(start: Any) -> None:
    """It says what there is and what would be done, and refuses what the job would refuse."""
    config = PredictConfig(model="m", batch_size=3)

    def lines(config: PredictConfig = config) -> list[str]:
        options = start.options()
        inputs = folder_inputs(start.photos, options)
        return dry_run(inputs, config, options, opener=start.opener)

    text = lines()
    assert text[0].startswith("pictures: 11 (")
    assert text[0].endswith("bytes) in 4 batches of up to 3")
    assert text[1] == "to run: 11 in 4 batches"
    assert not start.out.exists()
    start(limit=3)
    before = {p: p.stat().st_mtime_ns for p in start.out.rglob("*")}
    assert "to run: 8 in 3 batches" in lines()
    assert "done already: 3, of which 0 failed and will be tried again" in lines()
    with pytest.raises(UsageError, match=r"score: was 0\.05"):
        lines(replace(config, score=0.5))
    assert {p: p.stat().st_mtime_ns for p in start.out.rglob("*")} == before


def test_single_files(start: Any) -> None:
    """Files are named from their common folder; one that lies in OUT is refused."""
    options = start.options(command="predict image")
    files = [start.photos / "p1.png", start.photos / "a" / "x.png"]
    report = predict_job(file_inputs(files, options), PredictConfig(), options, opener=start.opener)
    assert (report.good, report.exit_code) == (2, 0)
    assert start.names() == ["a/x.png", "p1.png"]
    with pytest.raises(UsageError, match="lies inside --output"):
        file_inputs([start.out / "overlays" / "p1.png"], options)


def test_a_profile_changes_nothing(start: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """With --profile the files are the same, and a table says where the time went; without it there is none."""
    start()
    plain = {p.name: p.read_bytes() for p in start.out.rglob("*") if p.is_file()}
    assert "Profile" not in capsys.readouterr().err
    start(profile=True, overwrite=True)
    assert {p.name: p.read_bytes() for p in start.out.rglob("*") if p.is_file()} == plain
    err = capsys.readouterr().err
    rows = [[c.strip() for c in line.split("│")] for line in err.splitlines() if line[:1] == "│"]
    cells = {row[1]: row[2] for row in rows}
    assert {name: cells[name] for name in ("decode", "prepare", "model", "encode", "write")} == {
        "decode": "11",
        "prepare": "10",
        "model": "4",
        "encode": "11",
        "write": "4",
    }


def test_a_profile_of_nothing(start: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The flag may change between starts; where nothing is left it says so."""
    start(profile=True, limit=3)
    (start.photos / "b" / "broken.png").unlink()
    start()
    capsys.readouterr()
    start(profile=True)
    assert "profile: nothing to predict in this start" in capsys.readouterr().err


def test_a_full_disk_stops_the_job(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer's error is the job's; run again with room, it ends as if nothing had been."""
    start()
    whole = start.predictions()
    shutil.rmtree(start.out)
    commit = shards.ShardWriter.commit

    def full(_self: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shards.ShardWriter, "commit", full)
    with pytest.raises(OSError, match="No space left"):
        start()
    monkeypatch.setattr(shards.ShardWriter, "commit", commit)
    assert start().ran == 11
    assert start.predictions() == whole
