"""`report.html`: whole, offline, escaped, whatever state the run is in."""

from __future__ import annotations

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segcli import config as configuration
from segcli.annotations import Dataset
from segcli.categories import Categories
from segcli.data.coco import read_coco
from segcli.errors import UsageError
from segcli.training.report import write_report
from segcli.zoo import new_model, save_model

_VOID = {"meta", "img", "br", "circle", "path"}


class _Page(HTMLParser):
    """Checks that every element is closed, and collects elements, their addresses, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.addresses: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.addresses += [
            str(v) for k, v in attrs if k in ("src", "href", "xlink:href", "srcset", "data")
        ]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in _VOID:
            return
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def _page(path: Path) -> _Page:
    text = path.read_text(encoding="utf-8")
    page = _Page(text)
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(page.seen)
    assert all(a.startswith("data:image/") for a in page.addresses)
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text
    return page


def _log(run: Path, *rows: dict[str, Any], tail: str = "") -> None:
    run.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (run / "metrics.jsonl").write_text(text + tail)


def _steps(count: int) -> list[dict[str, Any]]:
    return [
        {
            "step": 20 * i, "epoch": i // 4, "train_seconds": float(i), "loss": 3 / i, "loss_mask": 1 / i,
            "loss_classifier": 2 / i, "gradient_norm": 2.0, "pictures_per_s": 4.0, "lr": 0.001 / i,
        }
        for i in range(1, count + 1)
    ]  # fmt: skip


def _val(step: int, mask: float | None, **extra: Any) -> dict[str, Any]:
    return {"step": step, "epoch": 1, "val": {"box": {"AP": 0.25}, "mask": {"AP": mask}, **extra}}


def test_an_empty_folder(tmp_path: Path) -> None:
    """Before anything was logged there is a report that says so."""
    path = write_report(tmp_path)

    assert path == tmp_path / "report.html"
    words = _page(path).words
    assert "Nothing was logged yet" in words
    assert "There are no weights yet" in words
    assert "not validated" in words


def test_a_run_without_validation(tmp_path: Path) -> None:
    """Curves but no AP chart."""
    _log(tmp_path, *_steps(30))
    page = _page(write_report(tmp_path, steps=600))

    assert page.seen.count("svg") == 5  # loss, its parts, lr, gradient norm, speed
    assert "not validated" in page.words
    assert "AP on the validation set" not in page.words


def test_a_killed_run(tmp_path: Path) -> None:
    """Half a line at the end is left out and mentioned, and the run is said to be unfinished."""
    _log(tmp_path, *_steps(3), tail='{"step": 80, "loss')
    words = _page(write_report(tmp_path, steps=600)).words

    assert "1 damaged line, left out" in words
    assert "going on, or was stopped" in words
    assert "of 600" in words


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    """A NaN never stops the report; it is counted among what went wrong."""
    rows = _steps(40)
    rows[7]["loss"] = float("nan")
    for row in rows:
        row["gradient_norm"] = float("inf")
    _log(tmp_path, *rows, _val(800, float("nan")))
    words = _page(write_report(tmp_path)).words

    assert "loss: 1 of 40 logged values are not finite" in words
    assert "gradient_norm: 40 of 40" in words
    assert "no finite value was logged" in words


def test_best_classes_and_events(tmp_path: Path) -> None:
    """The best evaluation is marked; classes have their rows; events are counted and listed, the newest first."""
    classes = [
        {
            "id": 1,
            "name": "<script>x</script>",
            "box": {"AP": 0.5},
            "mask": {"AP": None},
            "truth": 7,
            "detections": 9,
        }
    ]
    events = [
        {
            "step": 20 + i,
            "event": "skipped step",
            "reason": f"reason {i}",
            "files": [f"<b>{k}.jpg" for k in range(11)],
        }
        for i in range(60)
    ]
    _log(tmp_path, *_steps(9), _val(60, 0.1), _val(120, 0.4, per_class=classes), _val(180, 0.3), *events)  # fmt: skip
    page = _page(write_report(tmp_path))

    assert "best 0.400, step 120" in page.words
    assert "<script>x</script>" in page.words  # as text
    assert "skipped step: 60" in page.words
    assert "the last 50 of 60 events" in page.words
    assert "reason 59" in page.words
    assert "reason 9<" not in (tmp_path / "report.html").read_text()
    assert "<b>7.jpg and 3 more" in page.words


def test_a_hundred_thousand_lines_stay_small(tmp_path: Path) -> None:
    """Charts are thinned: the file does not grow with the log."""
    tmp_path.mkdir(exist_ok=True)
    line = '{{"step": {}, "epoch": 0, "train_seconds": 1.0, "loss": {}, "lr": 0.1}}\n'
    with (tmp_path / "metrics.jsonl").open("w") as stream:
        stream.writelines(line.format(i, 1 + i % 17) for i in range(1, 100_001))
    path = write_report(tmp_path)

    assert path.stat().st_size < 100_000
    assert "100,000" in _page(path).words


def test_settings_and_weights(tmp_path: Path) -> None:
    """Every setting as given and resolved; what the weights are; names escaped."""
    _log(tmp_path, *_steps(2))
    settings = {"model": "mask-rcnn-nano", "augment": ["flip", "scale"], "seed": 0}
    resolved = {**settings, "lr": 0.00025, "classes": ["<i>nut", "bolt"], "nested": {"deep": True}}
    text = configuration.dump("train", settings, resolved)
    (tmp_path / "config.toml").write_text(text, encoding="utf-8")
    model = new_model("mask-rcnn-nano", Categories.from_names(["<i>nut", "bolt"]), seed=0)
    save_model(tmp_path / "best.safetensors", model)
    words = _page(write_report(tmp_path)).words

    for expected in ("flip, scale", "0.00025", "<i>nut, bolt", "nested.deep", "2: <i>nut, bolt"):
        assert expected in words
    assert "million values" in words


def test_damaged_weights_and_settings(tmp_path: Path) -> None:
    """Weights that cannot be read are said to be so; settings that cannot are an error of one line."""
    (tmp_path / "best.safetensors").write_bytes(b"no such thing")
    assert "best.safetensors cannot be used" in _page(write_report(tmp_path)).words

    (tmp_path / "config.toml").write_text("= broken")
    with pytest.raises(UsageError, match="not a TOML file"):
        write_report(tmp_path)


def test_a_failed_write_keeps_the_old_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is replaced whole or not at all."""
    write_report(tmp_path)
    before = (tmp_path / "report.html").read_bytes()
    _log(tmp_path, *_steps(3))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_report(tmp_path)
    assert (tmp_path / "report.html").read_bytes() == before
    assert [p.name for p in tmp_path.glob(".*.tmp")] == []


@pytest.fixture
def val(squares: Callable[..., Path]) -> Dataset:
    return read_coco(squares("val", 3))


def test_pictures(val: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a validation set the best weights predict; pictures that cannot be read are warned of and left out."""
    run = tmp_path / "run"
    _log(run, *_steps(3), _val(60, 0.1))
    save_model(run / "best.safetensors", new_model("mask-rcnn-nano", val.categories, seed=0))
    assert val.pictures[1].path is not None
    val.pictures[1].path.write_bytes(b"broken")
    page = _page(write_report(run, val=val))

    assert "Of 2 pictures spread over the 3" in page.words
    assert len(page.addresses) == 4
    assert "1.png" in capsys.readouterr().err


def test_pictures_leave_random_numbers_alone(val: Dataset, tmp_path: Path) -> None:
    """A run goes on with the same random numbers whether or not a report was made."""
    import torch

    run = tmp_path / "run"
    _log(run, *_steps(3))
    save_model(run / "best.safetensors", new_model("mask-rcnn-nano", val.categories, seed=0))
    torch.manual_seed(5)
    np.random.seed(5)
    expected = torch.rand(3), np.random.rand(3)
    torch.manual_seed(5)
    np.random.seed(5)
    write_report(run, val=val)

    assert torch.equal(torch.rand(3), expected[0])
    assert np.array_equal(np.random.rand(3), expected[1])
