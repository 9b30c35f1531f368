"""The predictor of fixed shapes within a whole job: on a GPU as graphs, in the interpreter without."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from segcli import zoo
from segcli.categories import Categories
from segcli.cli.main import main
from segcli.config import PredictConfig
from segcli.device import resolve
from segcli.errors import PredictionError
from segcli.instances import Instances
from segcli.models import ARCHITECTURES, MaskRCNN
from segcli.models.inference.graphs import BufferedDetector, GraphedDetector
from segcli.models.inference.pipelined import Pipelined
from segcli.models.inference.preprocess_kernel import normalised_values
from segcli.models.inference.static import StaticDetector
from segcli.prediction.gpu_engine import graphed
from segcli.prediction.gpu_predictor import AGAIN, WAIT, GpuPredictor
from segcli.prediction.job import Report, folder_inputs, predict_job
from segcli.prediction.options import JobOptions
from segcli.prediction.pipeline import Source, run_batches
from segcli.prediction.predictor import Predictor
from segcli.prediction.profile import StageTimes
from segcli.prediction.tiling import TiledPredictor

# the fixture that fills fresh memory asks for determinism, which cuBLAS has by an environment variable only
pytestmark = pytest.mark.filterwarnings("ignore:Deterministic behavior was enabled:UserWarning")

CLASSES = Categories.from_names(["nut", "bolt", "gear"])
CONFIG = PredictConfig(
    model="m", batch_size=2, min_size=32, max_size=64, score=0.05, max_detections=8
)
SIZES = [(40, 50), (64, 33), (60, 64), (20, 20), (30, 90)]


@pytest.fixture(scope="module")
def network() -> MaskRCNN:
    """Random weights that find something; few proposals, which the interpreter can do."""
    made = zoo.new_model("mask-rcnn-nano", CLASSES, seed=0)
    made.state["roi_heads.box_predictor.cls_score.weight"] *= 40
    network = made.build()
    network.rpn._pre_nms_top_n["testing"] = network.rpn._post_nms_top_n["testing"] = 12
    return network


def plain(network: MaskRCNN, device: str, config: PredictConfig = CONFIG) -> Predictor:
    return Predictor(network, CLASSES, resolve(device, "fp32"), config=config)


def fitting(network: MaskRCNN, device: str, candidates: int) -> GpuPredictor:
    """One whose detector looks at so few candidates only."""
    inner = plain(network, device)
    detector = StaticDetector(
        network, device, score=CONFIG.score, max_detections=8, candidates=candidates
    )
    form = GraphedDetector if device == "cuda" else BufferedDetector
    values = normalised_values(inner.preprocess.mean, inner.preprocess.std)
    return GpuPredictor(inner, Pipelined(form(detector), values), values)


def pictures() -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(3)
    made = []
    for height, width in SIZES:
        coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        made.append(np.kron(coarse, np.ones((8, 8, 1), np.uint8))[:height, :width].copy())
    return made


def folder(path: Path) -> Path:
    """The pictures, and a broken one in the midst of them."""
    path.mkdir()
    for i, picture in enumerate(pictures()):
        Image.fromarray(picture).save(path / f"{i}.png")
    (path / "2b.png").write_bytes(b"no picture")
    return path


def expect_equal(found: Instances, expected: Instances) -> None:
    """The design's rule."""
    assert found.image_size == expected.image_size
    assert found.labels.tolist() == expected.labels.tolist()
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-2)
    np.testing.assert_allclose(found.scores, expected.scores, atol=2e-4)
    assert found.masks is not None
    assert expected.masks is not None
    for i in range(len(found)):
        assert np.count_nonzero(found.masks.full(i) != expected.masks.full(i)) <= 10


def in_batches(predictor: Predictor | GpuPredictor) -> list[Instances]:
    """All pictures, two at a time."""
    images, found = pictures(), []
    for i in range(0, len(images), 2):
        found += predictor.predict([predictor.prepare(image) for image in images[i : i + 2]])
    return found


def test_it_finds_what_the_plain_detector_finds(network: MaskRCNN, device: str) -> None:
    """Pictures of all shapes, in batches; no picture has to be run again."""
    expected = in_batches(plain(network, device))
    assert sum(len(e) for e in expected) >= 10
    predictor = graphed(network, plain(network, device))
    for ours, theirs in zip(in_batches(predictor), expected, strict=True):
        expect_equal(ours, theirs)
    assert (predictor.again, predictor.summary()) == (0, None)


def test_no_pictures(network: MaskRCNN, device: str) -> None:
    """An empty batch asks the device for nothing, and keeps its place among the others."""
    predictor = graphed(network, plain(network, device))
    assert predictor.predict([]) == []
    first, last = (predictor.prepare(image) for image in (pictures()[0], pictures()[3]))
    predictor.submit([first])
    predictor.submit([])
    predictor.submit([last])
    assert predictor.full
    assert predictor.under_way == 3
    sizes = [[i.image_size for i in predictor.collect()] for _ in range(3)]
    assert sizes == [[SIZES[0]], [], [SIZES[3]]]
    with pytest.raises(IndexError):
        predictor.collect()


def test_pictures_that_do_not_fit_are_run_again(network: MaskRCNN, device: str) -> None:
    """With few candidates many pictures come up short; their results are the plain detector's, and they are counted."""
    predictor = fitting(network, device, candidates=9)
    times = StageTimes()
    predictor.stages = times
    for ours, theirs in zip(in_batches(predictor), in_batches(plain(network, device)), strict=True):
        expect_equal(ours, theirs)
    assert predictor.again > 0
    assert times.sums()[AGAIN].calls == predictor.again
    assert times.sums()[WAIT].calls == len(SIZES)
    assert f"{predictor.again} of {len(SIZES)} pictures had more" in (predictor.summary() or "")


def run_job(root: Path, out: Path, predictor: object, **flags: object) -> Report:
    options = JobOptions(output=out, command="predict folder", **flags)  # type: ignore[arg-type]
    return predict_job(folder_inputs(root, options), CONFIG, options, opener=lambda _: predictor)  # type: ignore[arg-type,return-value]


def test_a_job_writes_the_rows_of_the_plain_path(
    network: MaskRCNN, device: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Decoding, batches under way, a broken picture, shards, export, and the note on what was run again."""
    root = folder(tmp_path / "photos")
    written = []
    for name, predictor in (
        ("plain", plain(network, device)),
        ("fixed", fitting(network, device, candidates=9)),
    ):
        report = run_job(root, tmp_path / name, predictor, profile=True)
        assert (report.good, report.failed) == (len(SIZES), 1)
        written.append(json.loads((tmp_path / name / "predictions.json").read_bytes()))
    said = capsys.readouterr().err
    assert "the plain detector ran them again" in said
    assert "wait for the device" in said
    expect_equal_files(*written)


def expect_equal_files(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    """The same of `predictions.json`."""
    assert ours["images"] == theirs["images"]
    assert len(ours["annotations"]) == len(theirs["annotations"]) > 0
    for a, b in zip(ours["annotations"], theirs["annotations"], strict=True):
        assert (a["image_id"], a["category_id"]) == (b["image_id"], b["category_id"])
        assert a["bbox"] == pytest.approx(b["bbox"], abs=2e-2)
        assert a["score"] == pytest.approx(b["score"], abs=2e-4)
        assert abs(a["area"] - b["area"]) <= 10


def test_an_interrupted_job_goes_on_with_the_same_bits(
    network: MaskRCNN, device: str, tmp_path: Path
) -> None:
    """What is left of it comes out as in one go."""
    root = folder(tmp_path / "photos")
    run_job(root, tmp_path / "whole", graphed(network, plain(network, device)))
    for limit in (2, None):
        run_job(root, tmp_path / "parts", graphed(network, plain(network, device)), limit=limit)
    whole, parts = ((tmp_path / n / "predictions.json").read_bytes() for n in ("whole", "parts"))
    assert whole == parts


def test_the_command_runs_it_by_itself(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`segcli predict folder` as users call it, with and without; what runs is said and recorded, rows are equal."""
    nano = ARCHITECTURES["mask-rcnn-nano"]
    monkeypatch.setitem(ARCHITECTURES, "mask-rcnn-nano", replace(nano, proposals=(12, 12)))
    made = zoo.new_model("mask-rcnn-nano", CLASSES, seed=0)
    made.state["roi_heads.box_predictor.cls_score.weight"] *= 40
    zoo.save_model(tmp_path / "m.safetensors", made)
    root = folder(tmp_path / "photos")
    written = []
    for name, flag, line in (("a", "--no-compile", "fp32, torch"), ("b", "--compile", "fp32, ")):
        flags = [
            "--min-size",
            "32",
            "--max-size",
            "64",
            "--batch-size",
            "2",
            "--max-detections",
            "8",
        ]
        flags += ["--precision", "fp32", "--device", device, flag]
        where = ["--model", str(tmp_path / "m.safetensors"), "--output", str(tmp_path / name)]
        assert main(["predict", "folder", str(root), *where, *flags]) == 3
        assert line in capsys.readouterr().err
        settings = tomllib.loads((tmp_path / name / "config.toml").read_text())
        assert settings["resolved"]["compile"] is (flag == "--compile")
        written.append(json.loads((tmp_path / name / "predictions.json").read_bytes()))
    expect_equal_files(*written)


class Together:
    """Decodes whole batches to tensors where the predictor runs."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.batches: list[int] = []

    def __call__(self, source: Source) -> NDArray[np.uint8]:
        raise AssertionError(source.key)

    def together(self, sources: Sequence[Source]) -> list[NDArray[np.uint8] | Tensor | Exception]:
        self.batches.append(len(sources))
        images = pictures()
        return [
            OSError("gone")
            if s.key == "1"
            else torch.from_numpy(images[int(s.key)]).to(self.device)
            for s in sources
        ]


def test_pictures_decoded_together(network: MaskRCNN, device: str) -> None:
    """A reader of batches is asked once per batch; tensors are taken as they are, errors become rows."""
    predictor = graphed(network, plain(network, device))
    reader = Together(device)
    sources = [Source(str(i), Path(f"{i}.jpg")) for i in range(len(SIZES))]
    batches = [sources[:2], sources[2:4], sources[4:]]
    found = [o for batch in run_batches(predictor, batches, read=reader) for o in batch]
    assert sorted(reader.batches) == [1, 2, 2]
    assert [o.error for o in found] == [None, "gone", None, None, None]
    images = pictures()
    for batch in ([0], [2, 3], [4]):
        expected = predictor.predict([predictor.prepare(images[i]) for i in batch])
        for i, instances in zip(batch, expected, strict=True):
            ours = found[i].instances
            assert ours is not None
            expect_equal(ours, instances)


def test_tiles_go_through_it(network: MaskRCNN, device: str) -> None:
    """Large pictures in tiles, with batches of tiles under way; as with the plain detector."""
    image = np.concatenate([np.concatenate([p] * 3, 1)[:60, :90] for p in [pictures()[2]] * 2])
    found = []
    for inner in (graphed(network, plain(network, device)), plain(network, device)):
        tiled = TiledPredictor(inner, 64, 0.2, max_detections=50)
        found.append(tiled.predict([tiled.prepare(image)])[0])
    assert len(found[0]) > 0
    expect_equal(found[0], found[1])


def test_a_failure_names_what_is_under_way_and_leaves_nothing_behind(
    network: MaskRCNN, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job stops; the next one starts at rest."""
    predictor = graphed(network, plain(network, device))
    submit, calls = predictor._engine.submit, []

    def fail(*args: object) -> None:
        calls.append(args)
        if len(calls) == 2:
            raise RuntimeError("out of memory")
        submit(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(predictor._engine, "submit", fail)
    images = pictures()
    sources = [[Source(str(i), Path(f"{i}.png"))] for i in range(3)]
    with pytest.raises(PredictionError, match=r"failed on 0, 1 \(out of memory\)"):
        list(run_batches(predictor, sources, read=lambda s: images[int(s.key)]))
    assert predictor.under_way == 0
    assert len(list(run_batches(predictor, sources, read=lambda s: images[int(s.key)]))) == 3


def test_leaving_early_empties_the_engine(network: MaskRCNN, device: str) -> None:
    """Batches under way do not come back as another job's results."""
    predictor = graphed(network, plain(network, device))
    images = pictures()
    sources = [[Source(str(i), Path(f"{i}.png"))] for i in range(4)]
    running = run_batches(predictor, sources, read=lambda s: images[int(s.key)])
    (first,) = next(running)
    running.close()
    assert predictor.under_way == 0
    assert first.instances is not None
    (again,) = next(run_batches(predictor, sources[3:], read=lambda s: images[int(s.key)]))
    assert again.instances is not None
    assert again.instances.image_size == SIZES[3]
