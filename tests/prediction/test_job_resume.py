"""Jobs that are started again: what is run, what is refused, and what the folder holds then."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from segcli.config import PredictConfig
from segcli.errors import DataError, PredictionError, UsageError
from segcli.prediction import shards

GOOD = ["a/x.png", "a/y.webp", "a/z.gif", "b/1.bmp", "b/2.ppm", "b/3.tif", "c d.png"]
GOOD += ["p1.png", "p2.jpg", "p10.png"]


def test_a_finished_job_opens_no_model(start: Any) -> None:
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
def test_limit_then_all(start: Any, limit: int) -> None:
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


def test_other_settings_are_refused(start: Any) -> None:
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
    start: Any, make_picture: Callable[[Path, int], Path]
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
    start: Any, make_picture: Callable[[Path, int], Path]
) -> None:
    """A broken picture that was replaced counts as changed and is predicted."""
    start()
    make_picture(start.photos / "b" / "broken.png", 5)
    report = start()
    assert (report.failed, report.exit_code) == (0, 0)
    assert start.failed() == {}
    assert "b/broken.png" in start.names()


def test_a_passing_failure_ends_as_if_it_never_was(
    start: Any, monkeypatch: pytest.MonkeyPatch
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


def test_unmounted_disk(start: Any) -> None:
    """Many vanished pictures are refused, with --drop-vanished they leave the export."""
    start()
    shutil.rmtree(start.photos / "a")
    before = (start.out / "plan.jsonl").read_bytes()
    with pytest.raises(DataError, match=r"3 of 11 planned pictures .* --drop-vanished"):
        start()
    assert (start.out / "plan.jsonl").read_bytes() == before
    assert start(drop_vanished=True).good == 7
    assert start.opened == []


def test_overwrite_begins_anew(start: Any) -> None:
    """With --overwrite other settings are fine, old results go, the user's own files stay."""
    start(overlays=True)
    (start.out / "notes.txt").write_text("mine")
    start(PredictConfig(model="other"), overwrite=True)
    assert start.ran() == 10
    assert not (start.out / "overlays" / "p1.png").exists()
    assert (start.out / "notes.txt").exists()
    assert 'model = "other"' in (start.out / "config.toml").read_text()


def test_a_lost_plan_is_refused(start: Any) -> None:
    """Shards whose plan is gone are not guessed at."""
    start()
    (start.out / "plan.jsonl").unlink()
    with pytest.raises(DataError, match=r"shards but no plan\.jsonl"):
        start()


def test_a_lost_shard_is_predicted_again(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a damaged shard was deleted, its batches run again and the bytes come out the same."""
    monkeypatch.setattr(shards, "MAX_PICTURES", 3)
    start()
    whole = start.predictions()
    (start.out / "shards" / "00001.jsonl").unlink()
    assert start().ran == 3
    assert start.predictions() == whole


def test_a_failing_model_keeps_what_is_done(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches before the failure are committed; the next start goes on behind them."""
    predict = start.fake.FakePredictor.predict

    def fail(self: Any, pictures: Any) -> Any:
        if len(self.batches) == 2:
            raise RuntimeError("out of memory")
        return predict(self, pictures)

    monkeypatch.setattr(start.fake.FakePredictor, "predict", fail)
    with pytest.raises(PredictionError, match=r"failed on c d\.png, p2\.jpg \(out of memory\)"):
        start()
    assert not (start.out / "predictions.json").exists()
    monkeypatch.undo()
    start()
    assert start.ran() == 4  # the broken picture of those batches never reaches the model
    assert start.names() == GOOD
