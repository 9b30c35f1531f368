"""Batches side by side: when, with how many threads, and that nothing depends on it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from segcli import config as configuration
from segcli import zoo
from segcli.categories import Categories
from segcli.config import PredictConfig
from segcli.instances import Instances
from segcli.prediction.facts import JobFacts
from segcli.prediction.lanes import FEWEST_PICTURES, lanes_for, use_threads
from segcli.prediction.loading import open_predictor, predictor_for
from segcli.prediction.pipeline import PicturePredictor, Source, run_batches
from segcli.prediction.predictor import Predictor
from segcli.prediction.tiling import TiledPredictor

LONG = JobFacts(FEWEST_PICTURES)


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model() -> zoo.LoadedModel:
    """A nano with random weights whose scores spread over classes."""
    made = zoo.new_model("mask-rcnn-nano", Categories.from_names(["nut", "bolt"]), seed=0)
    made.state["roi_heads.box_predictor.cls_score.weight"] *= 30
    return made


@pytest.mark.parametrize(
    ("architecture", "pictures", "threads", "recorded", "expected"),
    [
        pytest.param("mask-rcnn-nano", 0, 2, {}, 1, id="unknown length"),
        pytest.param("mask-rcnn-nano", FEWEST_PICTURES - 1, 2, {}, 1, id="short"),
        pytest.param("mask-rcnn-nano", FEWEST_PICTURES, 2, {}, 2, id="long"),
        pytest.param("mask-rcnn-nano", 10**6, 1, {}, 1, id="one core"),
        pytest.param("mask-rcnn-nano", 10**6, 64, {}, 4, id="many cores"),
        pytest.param("mask-rcnn-r50-fpn", 10**6, 2, {}, 1, id="large network"),
        pytest.param("mask-rcnn-nano", 10**6, 2, {"compile": False}, 1, id="begun without"),
        pytest.param("mask-rcnn-nano", 1, 2, {"lanes": 2}, 2, id="begun with"),
    ],
)
def test_how_many(
    architecture: str, pictures: int, threads: int, recorded: dict[str, object], expected: int
) -> None:
    """Where a measured gain is to be had; a job that goes on keeps what it has."""
    assert lanes_for(architecture, pictures, threads, recorded) == expected


def test_threads_are_the_caller_s_own() -> None:
    """Other threads keep theirs, the main one too."""

    def inside(count: int) -> int:
        use_threads(count)
        return torch.get_num_threads()

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(inside, 1).result() == 1
    assert torch.get_num_threads() == 2


def images() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = [(60 + 11 * i % 50, 90 - 7 * i % 40) for i in range(10)]
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def run(predictor: PicturePredictor) -> list[Instances]:
    pictures = images()
    batches = [[Source(str(i), Path(str(i)))] for i in range(len(pictures))]
    found = run_batches(predictor, batches, read=lambda s: pictures[int(s.key)])
    return [o.instances for batch in found for o in batch if o.instances is not None]


def test_the_same_bits_as_one_after_another(model: zoo.LoadedModel) -> None:
    """Two lanes of one thread find what one lane of one thread finds, with weights laid out alike; time after time."""
    config = PredictConfig(
        device="cpu", cpu_engine="torch", min_size=64, max_size=96, compile=False
    )
    laned = predictor_for(model, config, facts=LONG)
    assert isinstance(laned, Predictor)
    assert (laned.lanes, laned.resolved["lanes"], laned.resolved["threads"]) == (2, 2, 2)
    alone = predictor_for(model, config)
    assert isinstance(alone, Predictor)
    assert alone.lanes == 1
    assert "lanes" not in alone.resolved
    torch.set_num_threads(1)
    expected = run(alone)
    assert sum(map(len, expected)) > 10
    for ours, theirs in zip(run(laned) + run(laned), expected * 2, strict=True):
        assert np.array_equal(ours.boxes, theirs.boxes)
        assert np.array_equal(ours.labels, theirs.labels)
        assert ours.scores is not None
        assert theirs.scores is not None
        assert np.array_equal(ours.scores, theirs.scores)
        assert ours.masks is not None
        assert theirs.masks is not None
        assert np.array_equal(ours.masks.counts, theirs.masks.counts)


def test_it_is_said_and_kept(model: zoo.LoadedModel, capsys: pytest.CaptureFixture[str]) -> None:
    """The start line has it, and a job that goes on comes to the same settings, whatever is left of it."""
    config = PredictConfig(device="cpu", cpu_engine="torch", compile=False)
    first = predictor_for(model, config, facts=LONG)
    assert " in 2 lanes; RoIAlign" in capsys.readouterr().err
    text = configuration.dump("", {}, first.resolved)
    recorded = tomllib.loads(text)["resolved"]
    again = predictor_for(model, config, facts=JobFacts(1, recorded=recorded))
    assert again.resolved == first.resolved


@pytest.mark.parametrize("settings", [{"tile": 64}, {"tta": True}])
def test_tiles_and_views_have_no_lanes(
    settings: dict[str, object], model: zoo.LoadedModel, tmp_path: Path
) -> None:
    """They hand over pictures one at a time, with all threads."""
    zoo.save_model(tmp_path / "m.safetensors", model)
    config = PredictConfig(
        model=str(tmp_path / "m.safetensors"), device="cpu", cpu_engine="torch", compile=False,
        **settings,  # type: ignore[arg-type]
    )  # fmt: skip
    predictor = open_predictor(config, facts=LONG)
    inner = predictor.inner if isinstance(predictor, TiledPredictor) else predictor
    assert getattr(inner, "lanes", 1) == 1
    assert predictor.resolved["threads"] == 2
