"""Training runs: files, resume, failures."""

from __future__ import annotations

import errno
import json
import os
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from segcli.config import TrainConfig
from segcli.data.coco import read_coco
from segcli.errors import DataError, ModelError, OutputError, TrainingError, UsageError
from segcli.training.checkpoint import load_last, save_last
from segcli.training.job import Job, build_state, run
from segcli.training.material import Material
from segcli.training.setup import prepare
from segcli.zoo import load_model, new_model, save_model

QUICK = TrainConfig(
    model="mask-rcnn-nano", epochs=2, batch_size=2, min_size=64, max_size=96, warmup=1, workers=0,
    device="cpu",
)  # fmt: skip
Squares = Callable[..., Path]


def _prepare(data: Path, run_folder: Path, config: TrainConfig = QUICK, **extra: Any) -> Job:
    val = extra.pop("val", None)
    return prepare(
        Material.of([read_coco(data)]),
        None if val is None else read_coco(val),
        config,
        folder=run_folder,
        resume=extra.get("resume", False),
        overwrite=extra.get("overwrite", False),
    )


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    found = load_last(folder)
    assert found is not None
    return found.tensors["model"]  # type: ignore[no-any-return]


def _lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_what_the_contract_names(squares: Squares, tmp_path: Path) -> None:
    """best.safetensors, last.ckpt, config.toml, metrics.jsonl; the best weights predict by themselves."""
    run(_prepare(squares("train"), tmp_path / "run", val=squares("val", 2)))
    names = {p.name for p in (tmp_path / "run").iterdir()}
    assert {"best.safetensors", "last.ckpt", "config.toml", "metrics.jsonl"} <= names
    model = load_model(str(tmp_path / "run"))
    assert model.categories.names == ("square",)
    assert model.info["val"]["mask"]["AP"] >= 0
    assert model.spec.conventions.preprocess.min_size == 64
    model.build()
    saved = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert saved["command"] == "train"
    assert saved["resolved"]["lr"] == pytest.approx(0.0005)  # 0.001 at 8 pictures, 2 here
    lines = _lines(tmp_path / "run")
    assert [line["epoch"] for line in lines if "val" in line] == [1, 2]
    assert all(line["loss"] > 0 and "pictures_per_s" in line for line in lines if "val" not in line)


def test_a_resumed_run_ends_with_the_same_weights(squares: Squares, tmp_path: Path) -> None:
    """Stopped after one epoch of three and gone on with: bit for bit as if never stopped."""
    data = squares("train")
    three = replace(QUICK, epochs=3)
    run(_prepare(data, tmp_path / "whole", three))
    stopped = _prepare(data, tmp_path / "parts", three)
    with pytest.MonkeyPatch.context() as patch:

        def save_and_stop(*args: Any, **more: Any) -> None:
            save_last(*args, **more)
            raise KeyboardInterrupt

        patch.setattr("segcli.training.session.save_last", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            run(stopped)
    run(_prepare(data, tmp_path / "parts", three, resume=True))
    whole, parts = _weights(tmp_path / "whole"), _weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_the_number_of_workers_changes_nothing(squares: Squares, tmp_path: Path) -> None:
    """Augmentation is keyed by seed, epoch and picture."""
    data = squares("train")
    for workers in (0, 2):
        run(_prepare(data, tmp_path / str(workers), replace(QUICK, epochs=1, workers=workers)))
    first, second = _weights(tmp_path / "0"), _weights(tmp_path / "2")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_resume_in_an_empty_folder_starts_anew(squares: Squares, tmp_path: Path) -> None:
    """So that a job script can always say --resume."""
    progress = run(_prepare(squares("train"), tmp_path / "run", resume=True))
    assert progress.epoch == 2


def test_more_epochs_may_be_asked_for_at_a_resume(squares: Squares, tmp_path: Path) -> None:
    """Epochs, steps, workers and device are free."""
    data = squares("train")
    run(_prepare(data, tmp_path / "run"))
    progress = run(_prepare(data, tmp_path / "run", replace(QUICK, epochs=3), resume=True))
    assert progress.epoch == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"lr": 0.5}, r"lr: was 0\.0005, now 0\.5", id="learning rate"),
        pytest.param({"seed": 9}, "seed: was 0, now 9", id="seed"),
        pytest.param({"augment": ()}, "augment", id="augmentation"),
    ],
)
def test_other_settings_at_a_resume_are_refused(
    change: dict[str, Any], message: str, squares: Squares, tmp_path: Path
) -> None:
    """With both values in the message."""
    data = squares("train")
    run(_prepare(data, tmp_path / "run", replace(QUICK, epochs=1)))
    with pytest.raises(UsageError, match=message):
        _prepare(data, tmp_path / "run", replace(QUICK, **change), resume=True)


def test_other_data_at_a_resume_is_refused(squares: Squares, tmp_path: Path) -> None:
    """Data is known by the hash of its annotation file."""
    run(_prepare(squares("train"), tmp_path / "run", replace(QUICK, epochs=1)))
    with pytest.raises(UsageError, match="train_sha256"):
        _prepare(squares("different"), tmp_path / "run", resume=True)


def test_an_existing_run_is_kept_unless_overwritten(squares: Squares, tmp_path: Path) -> None:
    """Without --resume or --overwrite nothing is touched; a foreign folder not even with it."""
    data = squares("train")
    run(_prepare(data, tmp_path / "run", replace(QUICK, epochs=1)))
    with pytest.raises(OutputError, match="--overwrite"):
        _prepare(data, tmp_path / "run")
    _prepare(data, tmp_path / "run", overwrite=True)
    assert not (tmp_path / "run" / "last.ckpt").exists()
    foreign = tmp_path / "thesis"
    foreign.mkdir()
    (foreign / "chapter.txt").write_text("years of work")
    (foreign / ".chapter.tmp").write_text("a day of work")
    with pytest.raises(OutputError):
        _prepare(data, foreign, overwrite=True)
    assert (foreign / "chapter.txt").read_text() == "years of work"
    assert (foreign / ".chapter.tmp").read_text() == "a day of work"


def test_a_damaged_checkpoint_is_named(squares: Squares, tmp_path: Path) -> None:
    """And what to do about it."""
    data = squares("train")
    run(_prepare(data, tmp_path / "run", replace(QUICK, epochs=1)))
    (tmp_path / "run" / "last.ckpt").write_bytes(b"PK cut off")
    (tmp_path / "run" / "previous.ckpt").unlink(missing_ok=True)
    with pytest.raises(ModelError, match=r"last\.ckpt: damaged checkpoint .*--overwrite"):
        _prepare(data, tmp_path / "run", resume=True)


def test_pictures_that_all_break_stop_the_run(squares: Squares, tmp_path: Path) -> None:
    """Headers were fine when the dataset was read, pixels are not: an error rather than an endless run."""
    data = squares("train")
    job = _prepare(data, tmp_path / "run")
    for picture in (tmp_path / "train").iterdir():
        picture.write_bytes(picture.read_bytes()[:100])
    with pytest.raises(TrainingError, match="not one of its pictures can be read"):
        run(job)


def test_weights_to_start_from_are_not_deleted(squares: Squares, tmp_path: Path) -> None:
    """`--model RUN --output RUN --overwrite` would delete what it reads."""
    data = squares("train")
    run(_prepare(data, tmp_path / "run", replace(QUICK, epochs=1)))
    best = tmp_path / "run" / "best.safetensors"
    for model in (tmp_path / "run", best):
        with pytest.raises(UsageError, match="lies in --output"):
            _prepare(data, tmp_path / "run", replace(QUICK, model=str(model)), overwrite=True)
    assert best.exists()


def test_validation_that_cannot_be_is_refused_at_the_start(
    squares: Squares, tmp_path: Path
) -> None:
    """No class in common, or a patience with nothing to wait for."""
    val = squares("val", 1, classes=("circle",))
    with pytest.raises(DataError, match=r"--val .*val.json: no class in common.*circle.*square"):
        _prepare(squares("train"), tmp_path / "run", val=val)
    with pytest.raises(UsageError, match="--patience 3: counts validations, and there is none"):
        _prepare(squares("again"), tmp_path / "run", replace(QUICK, patience=3))
    assert not (tmp_path / "run" / "config.toml").exists()


def test_no_room_for_the_best_weights(
    squares: Squares, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line that names the file and says how to go on."""

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("segcli.training.results.save_model", full)
    with pytest.raises(
        OutputError, match=r"best.safetensors: cannot be written \(No space.*--resume"
    ):
        run(_prepare(squares("train"), tmp_path / "run", replace(QUICK, epochs=1)))


def test_fine_tuning_makes_new_heads_and_keeps_the_rest(
    squares: Squares, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other classes: said, and only the predictors are new; anchors and conventions stay the weights' own."""
    run(_prepare(squares("train"), tmp_path / "first", replace(QUICK, epochs=1)))
    before = load_model(str(tmp_path / "first"))
    tune = replace(QUICK, model=str(tmp_path / "first"), epochs=1)
    job = _prepare(squares("two", classes=("left", "right")), tmp_path / "second", tune)
    assert "predictor heads are made anew for left, right" in capsys.readouterr().err
    assert job.model.spec.anchors == before.spec.anchors
    name = "backbone.fpn.inner_blocks.0.0.weight"
    assert torch.equal(job.model.state[name], before.state[name])
    assert job.model.state["roi_heads.box_predictor.cls_score.weight"].shape[0] == 3
    run(job)


def test_going_on_with_the_same_classes_keeps_the_heads(
    squares: Squares, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is made anew where the names are equal."""
    data = squares("train")
    run(_prepare(data, tmp_path / "first", replace(QUICK, epochs=1)))
    again = _prepare(data, tmp_path / "second", replace(QUICK, model=str(tmp_path / "first")))
    assert "made anew" not in capsys.readouterr().err
    before = load_model(str(tmp_path / "first"))
    assert all(torch.equal(again.model.state[k], v) for k, v in before.state.items())


def test_torchvision_weights_keep_their_eps(squares: Squares, tmp_path: Path) -> None:
    """A fine-tune of the v1 COCO weights still has eps 0 in its record, and frozen early layers."""
    from segcli.zoo import COCO_91

    state = new_model("mask-rcnn-r50-fpn", COCO_91, seed=0).state
    torch.save(dict(state), tmp_path / "coco.pth")
    tune = replace(QUICK, model=str(tmp_path / "coco.pth"), steps=1)
    run(_prepare(squares("train"), tmp_path / "run", tune))
    model = load_model(str(tmp_path / "run"))
    assert model.spec.conventions.numerics.bn_eps == 0.0
    for name in ("backbone.body.conv1.weight", "backbone.body.layer1.0.conv1.weight"):
        assert torch.equal(model.state[name], state[name])
    name = "backbone.body.layer2.0.conv1.weight"
    assert not torch.equal(model.state[name], state[name])


def test_pictures_without_objects_are_trained_on(squares: Squares, tmp_path: Path) -> None:
    """An empty picture among others is background, and does not stop a batch of its own."""
    data = squares("train")
    table = json.loads(data.read_text())
    table["annotations"] = [a for a in table["annotations"] if a["image_id"] == 0]
    data.write_text(json.dumps(table))
    progress = run(_prepare(data, tmp_path / "run", replace(QUICK, batch_size=1, epochs=1)))
    assert progress.step == 4


def test_it_learns(squares: Squares, tmp_path: Path) -> None:
    """Losses fall on a handful of squares, so gradients point the right way."""
    config = replace(QUICK, steps=60, epochs=None, lr=0.002, augment=())
    run(_prepare(squares("train"), tmp_path / "run", config))
    losses = [line["loss"] for line in _lines(tmp_path / "run")]
    assert losses[-1] < 0.6 * losses[0]


def test_same_seed_same_weights_and_save_model_is_stable(squares: Squares, tmp_path: Path) -> None:
    """Two runs give the same best.safetensors but for nothing."""
    data = squares("train")
    for name in ("a", "b"):
        run(_prepare(data, tmp_path / name, replace(QUICK, epochs=1)))
    first, second = ((tmp_path / n / "best.safetensors").read_bytes() for n in "ab")
    assert first == second
    save_model(tmp_path / "c.safetensors", load_model(str(tmp_path / "a")))
    assert (tmp_path / "c.safetensors").exists()


def test_pictures_of_only_crowds_are_counted_to_the_user(
    squares: Squares, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are left out; nothing is said where there are none."""
    data = squares("train", 3)
    _prepare(data, tmp_path / "first")
    assert "3 pictures (0 without objects), 1 classes" in capsys.readouterr().err
    table = json.loads(data.read_text())
    for annotation in table["annotations"]:
        annotation["iscrowd"] = int(annotation["image_id"] == 0)
    data.write_text(json.dumps(table))
    _prepare(data, tmp_path / "second")
    assert "2 pictures (0 without objects; 1 of only crowds left out), " in capsys.readouterr().err


def test_cudnn_is_told_to_repeat_itself(
    squares: Squares, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it chooses among kernels of which some give other bits in every run."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    build_state(_prepare(squares("train", 1), tmp_path / "run"))
    assert torch.backends.cudnn.deterministic
