"""Whose a folder is, and what may be deleted in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from segcli import config
from segcli.errors import OutputError, UsageError
from segcli.output import (
    claim_output,
    drawn_log,
    owner,
    place,
    refuse_overlap,
    sweep,
)


def ours(folder: Path, command: str = "predict folder") -> Path:
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(config.dump(command, {}, {}))
    return folder


def write(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")


def names(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("overwrite", [False, True])
def test_absent_and_empty_folders_are_free(tmp_path: Path, overwrite: bool) -> None:
    """A folder that is not there, is empty, or holds only a lock and half-written files can be used."""
    claim_output(tmp_path / "new", overwrite=overwrite)
    assert not (tmp_path / "new").exists()
    write(tmp_path, ".lock", ".config.toml.abc.tmp")
    claim_output(tmp_path, overwrite=overwrite)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        pytest.param(None, id="no config"),
        pytest.param("title = 'mine'", id="another program's"),
        pytest.param("{", id="no toml"),
    ],
)
def test_foreign_folders_are_refused(tmp_path: Path, overwrite: bool, text: str | None) -> None:
    """What is not ours is not touched, --overwrite or not."""
    write(tmp_path, "thesis.tex", "predictions.json")
    if text is not None:
        (tmp_path / "config.toml").write_text(text)
    before = names(tmp_path)
    with pytest.raises(OutputError, match=r"no config\.toml of segcli's"):
        claim_output(tmp_path, overwrite=overwrite)
    assert names(tmp_path) == before


def test_a_file_is_refused(tmp_path: Path) -> None:
    """An output that is a file is refused."""
    write(tmp_path, "out")
    with pytest.raises(OutputError, match="is a file, expected a folder"):
        claim_output(tmp_path / "out", overwrite=True)


def test_our_results_need_overwrite(tmp_path: Path) -> None:
    """Results are not replaced unasked; the message names the flag and the command that made them."""
    out = ours(tmp_path / "out")
    with pytest.raises(OutputError, match=r"`segcli predict folder` made.*--overwrite"):
        claim_output(out, overwrite=False)


def test_overwrite_deletes_only_what_segcli_made(tmp_path: Path) -> None:
    """Known files go, drawings by their log; files of the user stay, config.toml until it is replaced."""
    out = ours(tmp_path / "out")
    made = ["plan.jsonl", "failed.jsonl", "predictions.json", "instances.csv", "counts.csv"]
    made += [
        "shards/00000.jsonl",
        "shards/00001.jsonl",
        "overlays/a/b.jpg",
        ".drawn-overlays.jsonl",
    ]
    kept = ["notes.txt", "shards/mine.jsonl", "overlays/a/mine.jpg"]
    write(out, *made, *kept)
    drawn_log(out, "overlays").write_text(
        '{"settings": {}}\n{"file": "a/b.jpg", "name": "a/b.jpg"}\n'
    )
    claim_output(out, overwrite=True, command="predict image")
    assert names(out) == {"config.toml", *kept}


def test_another_commands_results_stay(tmp_path: Path) -> None:
    """`predict --overwrite` into a RUN folder would delete trained weights: refused."""
    run = ours(tmp_path / "run", "train")
    write(run, "best.safetensors")
    with pytest.raises(OutputError, match="`segcli train` made, not `segcli predict folder`"):
        claim_output(run, overwrite=True, command="predict folder")
    claim_output(run, overwrite=True)
    assert names(run) == {"config.toml"}


def test_a_damaged_log_is_named(tmp_path: Path) -> None:
    """What cannot be read is not guessed at."""
    out = ours(tmp_path / "out")
    drawn_log(out, "masks").write_text("{\n")
    with pytest.raises(OutputError, match=r"drawn-masks\.jsonl: damaged"):
        claim_output(out, overwrite=True)


def test_owner(tmp_path: Path) -> None:
    """The command that made a folder is known from its config.toml."""
    assert owner(tmp_path) is None
    assert owner(ours(tmp_path / "out", "predict image")) == "predict image"


def test_output_over_input_is_refused(tmp_path: Path) -> None:
    """OUT = DIR by any name, and DIR in OUT, are refused; OUT in DIR is not."""
    photos = tmp_path / "photos"
    (photos / "sub").mkdir(parents=True)
    (tmp_path / "way").symlink_to(photos)
    for out in (photos, tmp_path / "way", photos / "sub" / ".."):
        with pytest.raises(UsageError, match="is the input itself"):
            refuse_overlap(photos, out)
    with pytest.raises(UsageError, match="lies inside --output"):
        refuse_overlap(photos / "sub", tmp_path / "way")
    refuse_overlap(photos, photos / "out")
    refuse_overlap(photos, tmp_path / "out")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("../a", id="up"),
        pytest.param("a/../../b", id="up later"),
        pytest.param("/etc/x", id="absolute"),
        pytest.param("", id="empty"),
    ],
)
def test_names_never_leave_the_folder(tmp_path: Path, name: str) -> None:
    """A name that leads out of the output is refused."""
    with pytest.raises(OutputError, match="leads out of"):
        place(tmp_path, name)


def test_sweep_removes_only_half_written_files(tmp_path: Path) -> None:
    """What a killed process left goes, in all folders of ours; the user's own files stay."""
    out = ours(tmp_path / "out")
    left = [".a.tmp", "shards/.b.tmp", "overlays/x/.c.tmp", "masks/.d.tmp"]
    kept = ["a.tmp", ".hidden", "mine/.e.tmp", ".lock"]
    write(out, *left, *kept)
    sweep(out)
    assert names(out) == {*kept, "config.toml"}


def test_sweep_leaves_other_folders_alone(tmp_path: Path) -> None:
    """They are refused afterwards; one that is not there is fine, and so is one of a start that was killed at once."""
    write(tmp_path / "mine", ".a.tmp", "overlays/.b.tmp", "thesis.tex")
    write(tmp_path / "killed", ".config.toml.abc.tmp", ".lock")
    for name in ("absent", "mine", "killed"):
        sweep(tmp_path / name)
    assert names(tmp_path) == {
        "mine/.a.tmp", "mine/overlays/.b.tmp", "mine/thesis.tex", "killed/.lock",
    }  # fmt: skip
