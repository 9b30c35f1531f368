"""DATASET on the command line: a file, or the one COCO file that a folder holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from segcli.data.locate import annotation_file, looks_like_coco, open_dataset
from segcli.errors import DataError, UsageError

Write = Callable[..., Path]


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        pytest.param(["a.json"], "a.json", id="only-one"),
        pytest.param(["annotations/b.json"], "annotations/b.json", id="annotations"),
        pytest.param(["a.json", "annotations/b.json"], "a.json", id="top-first"),
        pytest.param(["a.json", "instances.json"], "instances.json", id="instances"),
        pytest.param(["a.json", "trainval.json"], "trainval.json", id="trainval"),
        pytest.param(["a.json", "_annotations.coco.json"], "_annotations.coco.json", id="roboflow"),
        pytest.param(["train/_annotations.coco.json"], "train/_annotations.coco.json", id="below"),
        pytest.param(["data/x.json"], "data/x.json", id="one-level-below"),
    ],
)
def test_folder(
    tmp_path: Path,
    write_coco: Write,
    capsys: pytest.CaptureFixture[str],
    places: list[str],
    expected: str,
) -> None:
    """The likeliest annotation file of a folder is taken, and said; other json files do not count."""
    folder = tmp_path / "set"
    for place in places:
        write_coco(path=folder / place)
    (folder / "settings.json").write_text('{"images": 3}')
    (folder / "empty.json").write_text("")
    (folder / "folder.json").mkdir()
    assert annotation_file(folder) == folder / expected
    assert f"annotations are taken from {folder / expected}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("places", "named"),
    [
        pytest.param(
            ["train.json", "val.json"], "2 annotation files (train.json, val.json)", id="2"
        ),
        pytest.param(
            ["annotations/a.json", "annotations/b.json"],
            "annotations/a.json, annotations/b.json",
            id="a",
        ),
        pytest.param(
            ["test/_annotations.coco.json", "valid/_annotations.coco.json"],
            "test/_annotations.coco.json, valid/_annotations.coco.json",
            id="roboflow-export",
        ),
        pytest.param([f"{n}.json" for n in range(9)], "5.json and 3 more", id="many"),
    ],
)
def test_several(tmp_path: Path, write_coco: Write, places: list[str], named: str) -> None:
    """Several files of one kind are listed, and the user is asked for one."""
    for place in places:
        write_coco(path=tmp_path / "set" / place)
    with pytest.raises(UsageError) as caught:
        annotation_file(tmp_path / "set")
    assert named in str(caught.value)
    assert "name the one that is meant" in str(caught.value)


def test_nothing(tmp_path: Path) -> None:
    """An absent path and a folder without a dataset are wrong usage, with what was looked for."""
    with pytest.raises(UsageError, match="no such file or folder"):
        annotation_file(tmp_path / "absent")
    with pytest.raises(UsageError, match=r"looked for \*\.json, .*name the annotation file"):
        annotation_file(tmp_path)
    (tmp_path / "via.json").write_text("{}")
    with pytest.raises(UsageError, match=r"via\.json is no COCO dataset"):
        annotation_file(tmp_path)


def test_file_is_taken_as_it_is(tmp_path: Path, write_coco: Write) -> None:
    """A file is not judged by its name; reading it says what is wrong."""
    path = write_coco(path=tmp_path / "labels.txt")
    assert annotation_file(path) == path
    assert len(open_dataset(path, need_pictures=False).pictures) == 1
    path.write_text("words")
    with pytest.raises(DataError, match="not JSON"):
        open_dataset(path)


def test_open_dataset_says_what_is_wrong(
    write_coco: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was left out is a warning, what was repaired a message, each one line with counts."""
    rows = [{}, {"segmentation": []}, {"segmentation": []}, {"category_id": 9}, {"area": None}]
    path = write_coco(rows)
    open_dataset(path, need_pictures=False)
    assert capsys.readouterr().err.splitlines() == [
        f"warning: {path}: left out: 2 × no segmentation, 1 × unknown category_id; "
        "`segcli data check` lists them",
        f"{path}: repaired or noted: 1 × no area; `segcli data check` lists them",
    ]


def test_open_dataset_passes_settings_on(tmp_path: Path, write_coco: Write) -> None:
    """Pictures' folder, need of pictures and crowds reach the reader."""
    path = write_coco([{"iscrowd": 1}])
    with pytest.raises(DataError, match="--crowd-as-instance"):
        open_dataset(path, need_pictures=False)
    dataset = open_dataset(path, need_pictures=False, crowd_as_instance=True)
    assert not dataset.pictures[0].annotations[0].iscrowd
    with pytest.raises(UsageError, match="no such folder"):
        open_dataset(path, tmp_path / "absent")


def test_looks_like_coco(tmp_path: Path, write_coco: Write) -> None:
    """All three keys are needed; captions and absent files are no dataset."""
    assert looks_like_coco(write_coco())
    captions = tmp_path / "captions.json"
    captions.write_text('{"images": [], "annotations": []}')
    assert not looks_like_coco(captions)
    assert not looks_like_coco(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("place", "pictures"),
    [
        pytest.param("coco80", 80, id="coco80"),
        pytest.param("person80", 80, id="person80"),
        pytest.param("nuts_coco/data", 18, id="nuts"),
        pytest.param("nuts_coco", 18, id="nuts-above"),
    ],
)
def test_real_folders(shared: Callable[[str], Path], place: str, pictures: int) -> None:
    """Real folders need no flag."""
    dataset = open_dataset(shared(f"data/{place}"))
    assert len(dataset.pictures) == pictures
    assert dataset.problems == ()


@pytest.mark.parametrize(
    ("place", "named"),
    [
        pytest.param("nuclei400", "train.json, val.json", id="two-splits"),
        pytest.param("kudzu_via", "train/via_region_data.json", id="other-format"),
        pytest.param("odd_images", "no COCO annotation file", id="only-pictures"),
    ],
)
def test_real_folders_refused(shared: Callable[[str], Path], place: str, named: str) -> None:
    """Folders with several or no COCO files are wrong usage, with what they hold."""
    with pytest.raises(UsageError) as caught:
        open_dataset(shared(f"data/{place}"))
    assert named in str(caught.value)
