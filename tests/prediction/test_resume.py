"""What config.toml promises, and what is still to run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from segcli import config
from segcli.config import PredictConfig
from segcli.errors import DataError, OutputError, UsageError
from segcli.files import sha256
from segcli.prediction.pipeline import Source
from segcli.prediction.plan import Plan, Planned
from segcli.prediction.resume import (
    left_to_run,
    limited,
    load_saved,
    needs_model,
    refuse_differences,
    refuse_lost_plan,
    save_config,
)
from segcli.prediction.shards import Entry, Index

RESOLVED = {
    "score": 0.05,
    "batch_size": 2,
    "classes": ["a"],
    "c": {"n": {"eps": 0.0}},
    "none": None,
}


def saved(out: Path, settings: PredictConfig | None = None) -> dict[str, Any]:
    save_config(out, "predict folder", settings or PredictConfig(model="m"), RESOLVED)
    found = load_saved(out, "predict folder")
    assert found is not None
    return found


def test_there_and_back(tmp_path: Path) -> None:
    """What was saved is the same when it is read, None and tuples aside, and no model is needed to see it."""
    settings = PredictConfig(model="caf\udce9.pt", classes=("a",))
    found = saved(tmp_path, settings)
    refuse_differences(tmp_path, found, RESOLVED)
    assert not needs_model(found, settings)
    assert config.load_settings(tmp_path / "config.toml")["classes"] == ["a"]


def test_no_config(tmp_path: Path) -> None:
    """A folder without config.toml was not begun."""
    assert load_saved(tmp_path, "predict folder") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"score": 0.3}, r"\(score: was 0.05, now 0.3\)", id="value"),
        pytest.param({"classes": ["a", "b"]}, r"classes: was \['a'\], now \['a', 'b'\]", id="list"),
        pytest.param({"c": {"n": {"eps": 1.0}}}, r"\(c\.n\.eps: was 0\.0, now 1\.0\)", id="nested"),
        pytest.param({"tile": 512}, r"tile: was not set, now 512", id="new"),
        pytest.param({"score": None}, r"score: was 0.05, now not set", id="gone"),
        pytest.param(
            {"score": 0.3, "batch_size": 4}, r"batch_size: was 2, now 4; score: was", id="two"
        ),
        pytest.param(
            {"threads": 4}, r"same ones \(OMP_NUM_THREADS=N sets threads\), another", id="no flag"
        ),
        pytest.param({"classes": ["x" * 99]}, r"x…\)", id="long values are cut"),
    ],
)
def test_differences_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """Every difference is shown with its old and new value, and what can be done."""
    with pytest.raises(UsageError, match=message) as caught:
        refuse_differences(tmp_path, saved(tmp_path), {**RESOLVED, **change})
    assert "--overwrite" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        pytest.param("a = 1", OutputError, "not written by segcli", id="foreign"),
        pytest.param(config.dump("train", {}, {}), OutputError, "`segcli train` made", id="train"),
        pytest.param(
            'segcli = "1"\ncommand = "predict folder"', DataError, "has no settings", id="cut"
        ),
    ],
)
def test_other_configs_are_refused(
    tmp_path: Path, text: str, kind: type[Exception], message: str
) -> None:
    """A config.toml of something else is never resumed from."""
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(kind, match=message):
        load_saved(tmp_path, "predict folder")


def test_changed_weights_need_the_model(tmp_path: Path) -> None:
    """Other bytes under the same name are noticed, in a file and in a RUN folder."""
    weights = tmp_path / "run" / "best.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"one")
    for name in (weights, weights.parent):
        settings = PredictConfig(model=str(name))
        found = saved(tmp_path, settings)
        assert needs_model(found, settings)
        found["resolved"]["model_sha256"] = sha256(weights)
        assert not needs_model(found, settings)
        assert needs_model(found, PredictConfig(model=str(name), score=0.2))


def batch(number: int, *keys: str) -> list[Planned]:
    return [Planned(key, 1, 1, number) for key in keys]


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        pytest.param(None, 3, id="all"),
        pytest.param(1, 1, id="part of a batch"),
        pytest.param(2, 1, id="one batch"),
        pytest.param(3, 2, id="two"),
        pytest.param(99, 3, id="more than there are"),
    ],
)
def test_limit_takes_whole_batches(limit: int | None, expected: int) -> None:
    """Batches are taken until they hold as many pictures."""
    batches = [batch(0, "a", "b"), batch(1, "c", "d"), batch(2, "e")]
    assert limited(batches, limit) == batches[:expected]
    assert limited([], limit) == []


@pytest.mark.parametrize(
    ("now", "runs_again"),
    [
        pytest.param("broken", False, id="still broken"),
        pytest.param(None, True, id="readable now"),
        pytest.param("other", True, id="broken otherwise"),
    ],
)
def test_failed_pictures_are_tried_again(now: str | None, runs_again: bool) -> None:
    """A batch runs again only if a failed picture of it now fares otherwise."""
    done = Entry(0, 0, 1, size=(1, 1))
    index: Index = {"a": done, "b": Entry(0, 0, 1, error="broken"), "c": done}
    batches = [batch(0, "a", "b"), batch(1, "c"), batch(2, "d")]
    tried = []

    def read(source: Source) -> None:
        tried.append(source.key)
        if now:
            raise DataError(f"{source.path}: {now}")

    left = left_to_run(batches, index, path=Path, read=read)
    assert left == ([batches[0], batches[2]] if runs_again else [batches[2]])
    assert tried == ["b"]
    assert left_to_run(batches, index, path=Path, read=None) == [batches[2]]


def test_shards_without_a_plan_are_refused(tmp_path: Path) -> None:
    """Rows mean nothing without their plan."""
    refuse_lost_plan(tmp_path, Plan(), [])
    refuse_lost_plan(tmp_path, Plan(sections=1), [0])
    with pytest.raises(DataError, match=r"shards but no plan\.jsonl"):
        refuse_lost_plan(tmp_path, Plan(), [0])
