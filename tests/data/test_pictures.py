"""Picture files: found near the annotations however they are named, never outside, and checked by their header."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segcli.annotations import Problem
from segcli.data import pictures as pictures_module
from segcli.data.coco import read_coco, survey_coco
from segcli.data.pictures import clean_name
from segcli.errors import DataError, UsageError

Write = Callable[..., Path]
Save = Callable[..., Path]


def only(problems: tuple[Problem, ...]) -> Problem:
    (problem,) = problems
    return problem


@pytest.mark.parametrize(
    ("name", "clean", "outside"),
    [
        pytest.param("", "", False, id="empty"),
        pytest.param("a/b.png", "a/b.png", False, id="plain"),
        pytest.param("./a//b/../c.png", "a/c.png", False, id="dots"),
        pytest.param("a\\b.png", "a/b.png", False, id="backslashes"),
        pytest.param("../../a.png", "a.png", True, id="leading-dots"),
        pytest.param("a/../../b.png", "b.png", True, id="dots-inside"),
        pytest.param("/a/b.png", "a/b.png", True, id="absolute"),
        pytest.param("//host/share/b.png", "host/share/b.png", True, id="share"),
        pytest.param("C:\\a\\b.png", "a/b.png", True, id="drive"),
        pytest.param("x:1.png", "x:1.png", False, id="colon"),
        pytest.param("https://host.example/a/b.png", "a/b.png", True, id="address"),
        pytest.param("..", "", True, id="above"),
    ],
)
def test_clean_name(name: str, clean: str, outside: bool) -> None:
    """A cleaned name is relative and stays inside."""
    assert clean_name(name) == (clean, outside)


@pytest.mark.parametrize(
    ("file_name", "place"),
    [
        pytest.param("1.png", "1.png", id="beside"),
        pytest.param("1.png", "images/1.png", id="images"),
        pytest.param("1.png", "a/1.png", id="named-like-the-file"),
        pytest.param("1.png", "../images/1.png", id="images-above"),
        pytest.param("1.png", "../a/1.png", id="named-like-the-file-above"),
        pytest.param("1.png", "../images/a/1.png", id="images-above-by-name"),
        pytest.param("a/b/1.png", "images/a/b/1.png", id="folders"),
        pytest.param("a/b/1.png", "images/b/1.png", id="fewer-folders"),
        pytest.param("a\\b\\1.png", "a/b/1.png", id="backslashes"),
        pytest.param("../images/1.png", "../images/1.png", id="really-above"),
        pytest.param("../images/1.png", "images/1.png", id="leading-dots"),
        pytest.param("/home/me/data/images/1.png", "images/1.png", id="absolute"),
        pytest.param("C:\\data\\1.png", "images/1.png", id="drive"),
        pytest.param("x:1 ü.png", "x:1 ü.png", id="odd-name"),
    ],
)
def test_finds_pictures(
    tmp_path: Path,
    write_coco: Write,
    save_picture: Save,
    capsys: pytest.CaptureFixture[str],
    file_name: str,
    place: str,
) -> None:
    """Pictures are found near the annotation file however their names are written, and the folder is said."""
    source = write_coco(images=[{"file_name": file_name}], path=tmp_path / "set" / "a.json")
    path = save_picture(source.parent / place)
    dataset = read_coco(source)
    found = dataset.pictures[0]
    assert found.path is not None
    assert found.path.resolve() == path.resolve()
    assert (found.file_name, found.size, dataset.problems) == (file_name, (20, 30), ())
    assert "a.json: pictures are taken from " in capsys.readouterr().err


def test_coco_folders(tmp_path: Path, write_coco: Write, save_picture: Save) -> None:
    """COCO's own layout, annotations/instances_train2017.json beside train2017/, needs no flag."""
    save_picture(tmp_path / "train2017" / "1.png")
    save_picture(tmp_path / "val2017" / "1.png")
    source = write_coco(path=tmp_path / "annotations" / "instances_train2017.json")
    assert read_coco(source).images == tmp_path / "train2017"


def test_folder_with_most_pictures(tmp_path: Path, write_coco: Write, save_picture: Save) -> None:
    """The folder that holds most of the first pictures is taken."""
    save_picture(tmp_path / "1.png")
    for number in (1, 2, 3):
        save_picture(tmp_path / "images" / f"{number}.png")
    images = [{"file_name": f"{number}.png"} for number in (1, 2, 3)]
    dataset = read_coco(write_coco(images=images))
    assert dataset.images == tmp_path / "images"
    assert dataset.problems == ()


def test_images_folder_given(
    tmp_path: Path, write_coco: Write, save_picture: Save, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --images that folder comes first, its subfolders are searched, and nothing need be said."""
    save_picture(tmp_path / "1.png", (9, 9))
    path = save_picture(tmp_path / "elsewhere" / "deep" / "er" / "1.png")
    source = write_coco(images=[{"file_name": "old/1.png"}])
    assert read_coco(source, tmp_path / "elsewhere").pictures[0].path == path
    assert capsys.readouterr().err == ""
    with pytest.raises(UsageError, match="no such folder"):
        read_coco(source, tmp_path / "absent")


def test_base_name_twice(tmp_path: Path, write_coco: Write, save_picture: Save) -> None:
    """A base name that occurs twice under --images decides nothing: the picture is left out."""
    save_picture(tmp_path / "pictures" / "a" / "1.png")
    save_picture(tmp_path / "pictures" / "b" / "1.png")
    dataset = survey_coco(write_coco(), tmp_path / "pictures")
    assert dataset.problems[0].kind == "picture file not found"


def test_absent_pictures(tmp_path: Path, write_coco: Write, save_picture: Save) -> None:
    """Absent pictures are left out by name; none at all is refused with what to do."""
    path = write_coco([{}, {"image_id": 2}], [{}, {"file_name": "2.png"}])
    with pytest.raises(DataError, match=r"2 × picture file not found.*--images DIR"):
        read_coco(path)
    save_picture(tmp_path / "1.png")
    dataset = read_coco(path)
    assert [p.id for p in dataset.pictures] == [1]
    assert dataset.problems[0].where == "a.json: picture 2 (2.png)"


@pytest.mark.parametrize("name", ["../../secret.png", "{absolute}", "x/../../../secret.png"])
def test_never_leaves_its_folders(
    tmp_path: Path, write_coco: Write, save_picture: Save, name: str
) -> None:
    """A name that points outside finds no file there, even one that exists, and is refused by name."""
    name = name.format(absolute=save_picture(tmp_path / "secret.png"))
    source = write_coco(images=[{}, {"file_name": name}], path=tmp_path / "deep" / "set" / "a.json")
    save_picture(source.parent / "1.png")
    problem = only(read_coco(source).problems)
    assert problem.kind == "picture outside the dataset's folders"
    assert name in problem.where


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("..", id="dots"),
        pytest.param("/", id="root"),
        pytest.param("a\0b.png", id="null-byte"),
        pytest.param("x" * 5000 + ".png", id="too-long"),
        pytest.param("folder.png", id="a-folder"),
    ],
)
def test_impossible_names(tmp_path: Path, write_coco: Write, save_picture: Save, name: str) -> None:
    """Names that no file can have are left out, never an exception."""
    save_picture(tmp_path / "1.png")
    (tmp_path / "folder.png").mkdir()
    dataset = read_coco(write_coco(images=[{}, {"file_name": name}]))
    assert [p.id for p in dataset.pictures] == [1]
    assert only(dataset.problems).left_out


def test_two_pictures_of_one_file(tmp_path: Path, write_coco: Write, save_picture: Save) -> None:
    """Names that lead to one file by their base names cannot both be right: the second is left out."""
    save_picture(tmp_path / "images" / "1.png")
    dataset = read_coco(write_coco(images=[{"file_name": "a/1.png"}, {"file_name": "b/1.png"}]))
    assert [p.id for p in dataset.pictures] == [1]
    assert only(dataset.problems).kind == "file of another picture"
    assert "(a/1.png)" in only(dataset.problems).found


@pytest.mark.parametrize(
    ("orientation", "stored", "annotated", "raw", "kinds"),
    [
        pytest.param(None, (20, 30), (20, 30), False, [], id="plain"),
        pytest.param(6, (30, 20), (20, 30), False, [], id="upright"),
        pytest.param(6, (20, 30), (20, 30), True, ["annotated without EXIF rotation"], id="raw"),
        pytest.param(3, (20, 30), (20, 30), False, [], id="half-turn"),
        pytest.param(6, (20, 20), (20, 20), False, [], id="square"),
        pytest.param(None, (20, 30), (..., ...), False, ["picture without size"], id="no-size"),
        pytest.param(6, (30, 20), (..., ...), False, ["picture without size"], id="no-size-turned"),
    ],
)
def test_sizes_that_fit(
    tmp_path: Path,
    write_coco: Write,
    save_picture: Save,
    orientation: int | None,
    stored: tuple[int, int],
    annotated: tuple[Any, Any],
    raw: bool,
    kinds: list[str],
) -> None:
    """Sizes are compared with the upright picture; what fits only the unrotated one is kept raw, and said."""
    save_picture(tmp_path / "1.jpg", stored, orientation)
    height, width = annotated
    images = [{"file_name": "1.jpg", "height": height, "width": width}]
    dataset = read_coco(write_coco(images=images))
    expected = (20, 30) if height is ... else annotated
    assert (dataset.pictures[0].size, dataset.pictures[0].raw_pixels) == (expected, raw)
    assert [p.kind for p in dataset.problems] == kinds
    assert not any(p.left_out for p in dataset.problems)


@pytest.mark.parametrize(
    ("size", "remedy"),
    [
        pytest.param((21, 30), "use the picture that was annotated", id="other"),
        pytest.param((30, 20), "width and height are swapped", id="swapped"),
    ],
)
def test_sizes_that_differ(
    tmp_path: Path, write_coco: Write, save_picture: Save, size: tuple[int, int], remedy: str
) -> None:
    """A picture of another size than annotated is left out, with both sizes as width × height."""
    save_picture(tmp_path / "1.png", size)
    problem = survey_coco(write_coco()).problems[0]
    assert problem.kind == "picture of another size"
    assert problem.found == f"annotated 30 × 20, the file is {size[1]} × {size[0]}"
    assert remedy in problem.remedy


def test_unusable_files(
    tmp_path: Path, write_coco: Write, save_picture: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that are no pictures, damaged or too large are left out by name; the others are kept."""
    (tmp_path / "2.png").write_bytes(b"no picture")
    (tmp_path / "3.txt").write_text("text")
    save_picture(tmp_path / "4.png", (100, 100))
    save_picture(tmp_path / "1.png")
    monkeypatch.setattr(pictures_module, "MAX_PIXELS", 5000)
    large = {"file_name": "4.png", "height": 100, "width": 100}
    images = [{}, {"file_name": "2.png"}, {"file_name": "3.txt"}, large]
    dataset = read_coco(write_coco(images=images))
    assert [p.id for p in dataset.pictures] == [1]
    assert Counter(p.kind for p in dataset.problems) == {
        "unreadable picture": 1,
        "not a picture file": 1,
        "picture too large": 1,
    }


def test_links_are_the_users_own(tmp_path: Path, write_coco: Write, save_picture: Save) -> None:
    """A link in the folder that leads elsewhere is followed."""
    save_picture(tmp_path / "store" / "1.png")
    source = write_coco(path=tmp_path / "set" / "a.json")
    (source.parent / "images").symlink_to(tmp_path / "store")
    assert read_coco(source).pictures[0].path == source.parent / "images" / "1.png"
