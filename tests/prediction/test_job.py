"""Jobs end to end with a predictor without a network: results, resume, changes, refusals."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from segcli.config import DrawConfig, PredictConfig
from segcli.errors import DataError, OutputError, PredictionError, UsageError
from segcli.files import folder_lock
from segcli.prediction import shards
from segcli.prediction.job import Report, dry_run, file_inputs, folder_inputs, predict_job
from segcli.prediction.options import JobOptions

GOOD = ["a/x.png", "a/y.webp", "a/z.gif", "b/1.bmp", "b/2.ppm", "b/3.tif", "c d.png"]
GOOD += ["p1.png", "p2.jpg", "p10.png"]


@dataclass
class Starter:
    """Starts jobs over one folder and remembers which predictors were opened."""

    fake: ModuleType
    photos: Path
    out: Path
    opened: list[Any] = field(default_factory=list)

    def opener(self, config: PredictConfig) -> Any:
        self.opened.append(self.fake.open_predictor(config))
        return self.opened[-1]

    def options(self, **flags: Any) -> JobOptions:
        return JobOptions(**{"output": self.out, "command": "predict folder", **flags})

    def __call__(self, config: PredictConfig | None = None, **flags: Any) -> Report:
        self.opened.clear()
        options = self.options(**flags)
        config = config or PredictConfig(model="m", batch_size=3)
        inputs = folder_inputs(self.photos, options)
        return predict_job(inputs, config, options, opener=self.opener)

    def ran(self) -> int:
        """Pictures that the last start predicted."""
        return sum(n for predictor in self.opened for n in predictor.batches)

    def predictions(self) -> bytes:
        return (self.out / "predictions.json").read_bytes()

    def names(self) -> list[str]:
        return [image["file_name"] for image in json.loads(self.predictions())["images"]]

    def failed(self) -> dict[str, str]:
        lines = (self.out / "failed.jsonl").read_text().splitlines()
        return {row["file"]: row["error"] for row in map(json.loads, lines)}


@pytest.fixture
def start(fake: ModuleType, photos: Path, tmp_path: Path) -> Starter:
    return Starter(fake, photos, tmp_path / "out")


def test_a_whole_job(start: Starter) -> None:
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


def test_batch_mates_matter(start: Starter) -> None:
    """The fake model is a fair stand-in: other batches give other bytes, so equal bytes below mean something."""
    start()
    first = start.predictions()
    start(PredictConfig(model="m", batch_size=2), overwrite=True)
    assert start.predictions() != first


def test_a_finished_job_opens_no_model(start: Starter) -> None:
    """Run again, nothing is predicted and the bytes are the same; no shard is added for what fails as before."""
    start()
    before = {p: p.read_bytes() for p in (start.out / "shards").iterdir()}
    first = start.predictions()
    report = start()
    assert start.opened == []
    assert report.ran == 0
    assert report.exit_code == 3
    assert "0 run; results in" in report.line(start.out)
    assert start.predictions() == first
    assert {p: p.read_bytes() for p in (start.out / "shards").iterdir()} == before


@pytest.mark.parametrize("limit", [1, 3, 4, 10, 11, 99])
def test_limit_then_all(start: Starter, limit: int) -> None:
    """The first N pictures in whole batches, and later the rest: the bytes are those of one undisturbed run."""
    start()
    whole = start.predictions()
    shutil.rmtree(start.out)
    report = start(limit=limit)
    expected = min(-(-limit // 3) * 3, 11)
    assert report.good + report.failed == expected
    assert report.left == 11 - expected
    assert start.names() == [name for name in GOOD if name in start.names()]
    again = start(limit=limit)
    assert again.ran == 0
    start()
    assert start.predictions() == whole


def test_other_settings_are_refused(start: Starter) -> None:
    """Where something is left and where nothing is, a setting that changes predictions is refused with its values."""
    config = PredictConfig(model="m", batch_size=3)
    for flags in ({"limit": 3}, {}):
        start(config, **flags)
        with pytest.raises(UsageError, match=r"score: was 0\.05, now 0\.3"):
            start(replace(config, score=0.3))
        with pytest.raises(UsageError, match=r"batch_size: was 3, now 4"):
            start(replace(config, batch_size=4))
    start(replace(config, device="cpu"))  # differs as given, not as resolved
    assert len(start.opened) == 1


def test_new_changed_and_vanished_pictures(
    start: Starter, make_picture: Callable[[Path, int], Path]
) -> None:
    """New and changed pictures are run, in batches of their own; vanished ones leave the export."""
    for i in range(20):
        make_picture(start.photos / f"more{i}.png", i)
    start(csv=True)
    make_picture(start.photos / "a" / "new.png", 50)
    make_picture(start.photos / "p1.png", 51)
    os.utime(start.photos / "p1.png", ns=(1, 1))
    (start.photos / "p2.jpg").unlink()
    report = start()
    assert start.ran() == 2
    assert "a/new.png" in start.names()
    assert "p2.jpg" not in start.names()
    assert report.good == 30
    assert not (start.out / "instances.csv").exists()  # would no longer say what the shards say
    plan = (start.out / "plan.jsonl").read_bytes().splitlines()
    assert json.loads(plan[-3]) == {"file": "p2.jpg", "gone": True}
    assert start().ran == 0


def test_a_repaired_picture_leaves_the_failures(
    start: Starter, make_picture: Callable[[Path, int], Path]
) -> None:
    """A broken picture that was replaced counts as changed and is predicted."""
    start()
    make_picture(start.photos / "b" / "broken.png", 5)
    report = start()
    assert (report.failed, report.exit_code) == (0, 0)
    assert start.failed() == {}
    assert "b/broken.png" in start.names()


def test_a_passing_failure_ends_as_if_it_never_was(
    start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture that could not be read for a while is read at the next start, with its whole batch."""
    start()
    whole = start.predictions()
    shutil.rmtree(start.out)
    from segcli.prediction import pictures

    decode = pictures.read_image

    def flaky(path: Path, **options: Any) -> Any:
        if path.name == "y.webp":
            raise OSError(5, "Input/output error")
        return decode(path, **options)

    monkeypatch.setattr(pictures, "read_image", flaky)
    assert start().failed == 2
    assert start.failed()["a/y.webp"] == "Input/output error"
    assert start.predictions() != whole
    monkeypatch.undo()
    assert start().ran == 3
    assert start.predictions() == whole


def test_unmounted_disk(start: Starter) -> None:
    """Many vanished pictures are refused, with --drop-vanished they leave the export."""
    start()
    shutil.rmtree(start.photos / "a")
    before = (start.out / "plan.jsonl").read_bytes()
    with pytest.raises(DataError, match=r"3 of 11 planned pictures .* --drop-vanished"):
        start()
    assert (start.out / "plan.jsonl").read_bytes() == before
    assert start(drop_vanished=True).good == 7
    assert start.opened == []


def test_output_in_the_folder(start: Starter) -> None:
    """OUT inside DIR is no input, not even the overlays in it."""
    start.out = start.photos / "results"
    start(overlays=True, masks=True)
    assert start.names() == GOOD
    assert start().ran == 0


def test_empty_folder_and_refusals_leave_nothing(start: Starter, tmp_path: Path) -> None:
    """No pictures, or a model that cannot be opened: an error before OUT is made."""
    shutil.rmtree(start.photos)
    start.photos.mkdir()
    with pytest.raises(UsageError, match=r"no pictures in it; looked for files that end in \.bmp"):
        start()
    assert not start.out.exists()
    with pytest.raises(UsageError, match="is the input itself"):
        start(output=start.photos)


def test_unwritable_place(start: Starter, tmp_path: Path) -> None:
    """An output that cannot be made is one line."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be made"):
        start(output=tmp_path / "file" / "out")


def test_a_second_process_is_refused(start: Starter) -> None:
    """While OUT is held nobody else writes there."""
    start()
    with folder_lock(start.out), pytest.raises(OutputError, match="in use by another segcli"):
        start()


def test_another_commands_output(start: Starter) -> None:
    """`predict image` does not go on with what `predict folder` began, unless it is to be overwritten."""
    start()
    with pytest.raises(OutputError, match="`segcli predict folder` made"):
        start(command="predict image")
    assert start(command="predict image", overwrite=True).good == 10


def test_overwrite_begins_anew(start: Starter) -> None:
    """With --overwrite other settings are fine, old results go, the user's own files stay."""
    start(overlays=True)
    (start.out / "notes.txt").write_text("mine")
    start(PredictConfig(model="other"), overwrite=True)
    assert start.ran() == 10
    assert not (start.out / "overlays" / "p1.png").exists()
    assert (start.out / "notes.txt").exists()
    assert 'model = "other"' in (start.out / "config.toml").read_text()


def test_a_lost_plan_is_refused(start: Starter) -> None:
    """Shards whose plan is gone are not guessed at."""
    start()
    (start.out / "plan.jsonl").unlink()
    with pytest.raises(DataError, match=r"shards but no plan\.jsonl"):
        start()


def test_a_lost_shard_is_predicted_again(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a damaged shard was deleted, its batches run again and the bytes come out the same."""
    monkeypatch.setattr(shards, "MAX_PICTURES", 3)
    start()
    whole = start.predictions()
    (start.out / "shards" / "00001.jsonl").unlink()
    assert start().ran == 3
    assert start.predictions() == whole


def test_a_failing_model_keeps_what_is_done(
    start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches before the failure are committed; the next start goes on behind them."""
    predict = start.fake.FakePredictor.predict

    def fail(self: Any, pictures: Any) -> Any:
        if len(self.batches) == 2:
            raise RuntimeError("out of memory")
        return predict(self, pictures)

    monkeypatch.setattr(start.fake.FakePredictor, "predict", fail)
    with pytest.raises(PredictionError, match=r"failed on c d\.png, p1\.png \(out of memory\)"):
        start()
    assert not (start.out / "predictions.json").exists()
    monkeypatch.undo()
    start()
    assert start.ran() == 4  # the broken picture of those batches never reaches the model
    assert start.names() == GOOD


def test_drawings_without_a_model(start: Starter) -> None:
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


def test_a_picture_that_cannot_be_drawn(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stands in failed.jsonl beside those that could not be predicted."""
    from segcli.overlay import render

    def fail(*_: Any) -> None:
        raise DataError("no paint")

    start()
    monkeypatch.setattr(render, "draw_instances", fail)
    report = start(overlays=True)
    assert report.failed == 11
    assert start.failed()["p1.png"] == "overlays: no paint"


def test_coco_json_can_be_left_out(start: Starter) -> None:
    """Without predictions.json the shards hold all."""
    start(coco_json=False)
    assert not (start.out / "predictions.json").exists()
    assert len(list(shards.latest_rows(start.out))) == 11


def test_unreadable_folders_are_failures(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that cannot be listed is named among the failures, and the rest is done."""
    scan = os.scandir

    def scandir(path: Path) -> Any:
        if Path(path).name == "a":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert start().good == 7
    assert start.failed()["a/"] == "cannot list this folder (Permission denied)"


def test_names_that_are_no_utf8(start: Starter) -> None:
    """A file whose name is no UTF-8 is predicted, exported and drawn under its escaped name."""
    raw = os.fsencode(start.photos) + b"/caf\xe9.png"
    shutil.copyfile(start.photos / "p1.png", raw)
    start(overlays=True, masks=True, csv=True)
    assert "caf\\xe9.png" in start.names()
    assert (start.out / "overlays" / "caf\\xe9.png").is_file()
    assert start().ran == 0


def test_dry_run_writes_nothing(start: Starter) -> None:
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


def test_single_files(start: Starter) -> None:
    """Files are named from their common folder; one that lies in OUT is refused."""
    options = start.options(command="predict image")
    files = [start.photos / "p1.png", start.photos / "a" / "x.png"]
    report = predict_job(file_inputs(files, options), PredictConfig(), options, opener=start.opener)
    assert (report.good, report.exit_code) == (2, 0)
    assert start.names() == ["a/x.png", "p1.png"]
    with pytest.raises(UsageError, match="lies inside --output"):
        file_inputs([start.out / "overlays" / "p1.png"], options)
