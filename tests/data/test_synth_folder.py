"""Where `synthesize` writes, what it refuses, and what `overwrite` may delete."""

from __future__ import annotations

from pathlib import Path

import pytest

from segcli import config
from segcli.data import synth
from segcli.data.synth import synthesize
from segcli.errors import OutputError, UsageError


def contents(folder: Path) -> dict[str, bytes]:
    """Every file under `folder`, by relative path."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@pytest.mark.parametrize(
    ("images", "seed", "message"),
    [
        pytest.param(0, 0, "--images 0: expected at least 2", id="none"),
        pytest.param(-3, 0, "--images -3: expected at least 2", id="negative"),
        pytest.param(1, 0, "--images 1: expected at least 2", id="no-val"),
        pytest.param(2, -1, "--seed -1: expected a number from 0", id="negative-seed"),
        pytest.param(2, 2**63, f"--seed {2**63}: expected", id="huge-seed"),
    ],
)
def test_refuses_numbers(tmp_path: Path, images: int, seed: int, message: str) -> None:
    """Numbers out of range are named, and nothing is written."""
    with pytest.raises(UsageError, match=message):
        synthesize(tmp_path / "out", images=images, seed=seed)
    assert not (tmp_path / "out").exists()


def test_largest_seed_works(tmp_path: Path) -> None:
    """The end of the range is part of it."""
    assert synthesize(tmp_path / "out", images=2, seed=2**63 - 1).pictures["val"] == 1


def test_full_folder_is_refused(tmp_path: Path) -> None:
    """A folder that holds something is left alone without --overwrite, and foreign ones with it too."""
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"is not empty.*--overwrite"):
        synthesize(tmp_path, images=2, seed=0)
    with pytest.raises(OutputError, match="holds no dataset of `segcli data synth`"):
        synthesize(tmp_path, images=2, seed=0, overwrite=True)
    (tmp_path / "config.toml").write_text(config.dump("train", {}, {}))
    with pytest.raises(OutputError, match="holds no dataset"):
        synthesize(tmp_path, images=2, seed=0, overwrite=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_file_in_the_way_is_refused(tmp_path: Path) -> None:
    """OUT that is a file is named as such, also with --overwrite."""
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputError, match="is a file"):
        synthesize(tmp_path / "out", images=2, seed=0, overwrite=True)


def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """OUT below a file is an error of one line, not of the system."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match=r"out: cannot be written to \(Not a directory\)"):
        synthesize(tmp_path / "file" / "out", images=2, seed=0)


def test_empty_folder_is_taken(tmp_path: Path) -> None:
    """An empty folder is as good as none, with --overwrite too."""
    assert synthesize(tmp_path, images=2, seed=0, overwrite=True).pictures == {"train": 1, "val": 1}


def test_overwrite_replaces_only_its_own(tmp_path: Path) -> None:
    """--overwrite leaves no picture of the former dataset behind, and keeps files that are not ours."""
    synthesize(tmp_path / "out", images=10, seed=0)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="is not empty"):
        synthesize(tmp_path / "out", images=4, seed=1)
    synthesize(tmp_path / "out", images=4, seed=1, overwrite=True)
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
    (tmp_path / "out" / "notes.txt").unlink()
    synthesize(tmp_path / "fresh", images=4, seed=1)
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_interrupted_run_can_be_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run leaves that died half way has no train.json, and --overwrite takes it."""

    def fail(_scene: object) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(synth, "encode_png", fail)
        with pytest.raises(KeyboardInterrupt):
            synthesize(tmp_path / "out", images=2, seed=0)
    assert not (tmp_path / "out" / "train.json").exists()
    with pytest.raises(OutputError, match="is not empty"):
        synthesize(tmp_path / "out", images=2, seed=0)
    assert synthesize(tmp_path / "out", images=2, seed=0, overwrite=True).objects["train"] >= 8
