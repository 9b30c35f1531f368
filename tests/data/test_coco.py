"""Reading COCO json: what is no dataset is refused, and real datasets come through exactly."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

from segcli.data.coco import load_coco, read_coco, survey_coco
from segcli.errors import DataError

Write = Callable[..., Path]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        pytest.param("", "line 1, column 1", id="empty"),
        pytest.param('{"images": [\n1,,2]}', "line 2, column 3", id="comma"),
        pytest.param('{"images": [', "line 1", id="cut-off"),
        pytest.param("[" * 100_000, "not JSON", id="nested"),
        pytest.param("1" * 10_000, "not JSON", id="endless-number"),
        pytest.param("[]", "holds a list", id="list"),
        pytest.param("3", "holds a int", id="number"),
        pytest.param('[{"image_id": 1, "score": 0.5}]', "--predictions", id="results"),
        pytest.param("{}", "no key `images`, found none", id="no-key"),
        pytest.param('{"images": [], "annotations": []}', "no key `categories`", id="no-classes"),
        pytest.param('{"images": {}}', "`images` is a dict", id="not-a-list"),
        pytest.param('{"a.jpg12": {"regions": []}}', "VGA Image Annotator", id="via"),
        pytest.param('{"shapes": [], "imagePath": "a.jpg"}', "LabelMe", id="labelme"),
    ],
)
def test_not_a_coco_file(tmp_path: Path, text: str, named: str) -> None:
    """What is no COCO json is refused in one line that names the file and what was found."""
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_coco(path)
    assert named in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_unreadable_file(tmp_path: Path) -> None:
    """A folder, an absent file and bytes that are no text are errors of one line."""
    (tmp_path / "b.json").write_bytes(b"\xff\xd8\xff\xe0 no text")
    for path in (tmp_path, tmp_path / "absent.json", tmp_path / "b.json"):
        with pytest.raises(DataError, match=r"cannot be read|not JSON"):
            load_coco(path)


def test_byte_order_mark(write_coco: Write) -> None:
    """A file that Windows marked as UTF-8 is read."""
    path = write_coco()
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(read_coco(path, need_pictures=False).pictures[0].annotations) == 1


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        pytest.param({"images": []}, "no usable picture: the list of pictures is empty", id="none"),
        pytest.param({"annotations": []}, "no usable annotation: the list", id="no-annotation"),
        pytest.param({"categories": []}, "1 × unknown category_id", id="no-class"),
        pytest.param(
            {"annotations": [{"segmentation": []}, {"segmentation": []}]},
            "2 × no segmentation, first a.json: annotation 1 on 1.png",
            id="all-bad",
        ),
        pytest.param({"images": [{"height": 0}]}, "1 × picture without size", id="bad-picture"),
        pytest.param({"annotations": [{"iscrowd": 1}]}, "--crowd-as-instance", id="crowds"),
    ],
)
def test_nothing_usable(write_coco: Write, parts: dict[str, Any], named: str) -> None:
    """Only when nothing usable is left is a dataset refused, with the commonest reason."""
    path = write_coco(**parts)
    survey_coco(path, need_pictures=False)
    with pytest.raises(DataError) as caught:
        read_coco(path, need_pictures=False)
    assert named in str(caught.value)


def test_crowds_as_instances(write_coco: Write) -> None:
    """Where most are crowds the flag is offered; with it they are ordinary annotations."""
    path = write_coco([{"iscrowd": 1}, {"iscrowd": 1}, {}])
    dataset = read_coco(path, need_pictures=False)
    (problem,) = dataset.problems
    assert (problem.found, problem.left_out) == ("2 of 3 annotations", False)
    assert "--crowd-as-instance" in problem.remedy
    taken = read_coco(path, need_pictures=False, crowd_as_instance=True)
    assert taken.problems == ()
    assert not any(a.iscrowd for a in taken.pictures[0].annotations)


def test_no_picture_is_looked_for(write_coco: Write, tmp_path: Path) -> None:
    """Without need of pictures no folder is looked at, not even one that was given."""
    dataset = read_coco(write_coco(), tmp_path / "absent", need_pictures=False)
    assert dataset.images is None
    assert dataset.pictures[0].path is None
    assert (dataset.pictures[0].size, dataset.problems) == ((20, 30), ())


def test_size_from_run_lengths(write_coco: Write) -> None:
    """Where the json gives no size and no file is looked at, that of the first run lengths is taken."""
    masks = [{"size": 3, "counts": ""}, {"size": [0, 9], "counts": ""}]
    masks += [{"size": [20, 30], "counts": [100, 10, 490]}, {"size": [9, 9], "counts": ""}]
    path = write_coco([{}, *({"segmentation": m} for m in masks), None], [{"width": ...}])
    dataset = survey_coco(path, need_pictures=False)
    assert dataset.pictures[0].size == (20, 30)
    assert [a.id for a in dataset.pictures[0].annotations] == [1, 4]
    assert Counter(p.kind for p in dataset.problems) == {
        "picture without size": 1,
        "RLE of another size": 3,
        "row that is no object": 1,
    }


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # pycocotools' own decode
@pytest.mark.parametrize(
    ("place", "folder", "pictures"),
    [
        pytest.param("coco80/instances.json", "images", 80, id="coco80"),
        pytest.param("person80/person_keypoints.json", "images", 80, id="person80"),
        pytest.param("nuclei400/train.json", "train", 320, id="nuclei-train"),
        pytest.param("nuclei400/val.json", "val", 80, id="nuclei-val"),
        pytest.param("nuts_coco/data/trainval.json", "images", 18, id="nuts"),
        pytest.param("eval_parity/instances_val2014_100.json", None, 100, id="eval-parity"),
    ],
)
def test_real_data(
    shared: Callable[[str], Path], place: str, folder: str | None, pictures: int
) -> None:
    """Real datasets have no problem, and every number and mask is what pycocotools reads."""
    source = shared(f"data/{place}")
    dataset = read_coco(source, need_pictures=folder is not None)
    assert dataset.problems == ()
    assert len(dataset.pictures) == pictures
    assert dataset.images == (None if folder is None else source.parent / folder)
    reference = COCO()
    reference.dataset = json.loads(source.read_text())
    reference.createIndex()
    for number, found in enumerate(dataset.pictures):
        expected = reference.imgToAnns[found.id]
        assert [a.id for a in found.annotations] == [e["id"] for e in expected]
        for annotation, row in zip(found.annotations, expected, strict=True):
            assert (annotation.area, annotation.bbox.tolist()) == (row["area"], row["bbox"])
            assert annotation.iscrowd == bool(row["iscrowd"])
            assert dataset.categories.ids[annotation.label] == row["category_id"]
            if number % 7 == 0:
                mask = annotation.mask(found.size).full(0)
                np.testing.assert_array_equal(mask, reference.annToMask(row))
