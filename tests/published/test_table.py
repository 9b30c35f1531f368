"""The table of published weights: complete, consistent, and nothing in it without a source."""

from __future__ import annotations

import re
from collections import Counter
from urllib.parse import urlsplit

import pytest
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_V2_Weights as V2
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights as V1

from segcli.download import check_address
from segcli.errors import UsageError
from segcli.models import ARCHITECTURES, PRESETS
from segcli.published import FAMILIES, PUBLISHED, find, nearest

ROWS = list(PUBLISHED.values())
RUNS = [row for row in PUBLISHED.values() if row.reason is None]


def test_every_row_has_a_source_and_makes_sense() -> None:
    """An https page of the publisher's at one version, a name with one slash, AP that are fractions."""
    for row in ROWS:
        page = urlsplit(row.source)
        assert page.scheme == "https", row.name
        assert page.hostname == "github.com", row.name
        assert re.search(r"/blob/(v[\d.]+|[0-9a-f]{40})/", page.path), row.name
        assert row.family in FAMILIES, row.name
        assert re.fullmatch(r"[a-z0-9]+/[a-z0-9.-]+", row.name), row.name
        assert all(ap is None or 0.1 < ap < 0.7 for ap in (row.box_ap, row.mask_ap)), row.name
        assert row.training_gb is None or 1 < row.training_gb < 50, row.name
        assert row.megabytes is None or 10 < row.megabytes < 2000, row.name
        assert row.backbone, row.name
        assert row.dataset, row.name


def test_runnable_or_a_reason() -> None:
    """Either an architecture and conventions that exist, on COCO with both AP, or a reason."""
    for row in ROWS:
        if row.reason is None:
            assert row.architecture in ARCHITECTURES, row.name
            assert row.conventions in PRESETS, row.name
            assert row.address, row.name
            assert row.dataset == "COCO", row.name
            assert row.box_ap, row.name
            assert row.mask_ap, row.name
        else:
            assert row.reason.strip(), row.name
            assert row.architecture is None, row.name
            assert row.conventions is None, row.name


def test_the_hash_is_in_the_files_name() -> None:
    """So it is the publisher's own and no invention."""
    for row in ROWS:
        if row.address is None:
            assert row.file_name is None, row.name
            assert row.hash_prefix is None, row.name
            continue
        check_address(row.address)
        assert row.hash_kind == {"detectron2": "md5"}.get(row.family, "sha256"), row.name
        assert row.hash_prefix, row.name
        assert re.search(rf"[-_]{row.hash_prefix}\.(pth|pkl)$", row.address), row.name


def test_files_do_not_collide_in_the_cache() -> None:
    """Every address ends in a name of its own."""
    names = Counter(row.file_name for row in PUBLISHED.values() if row.file_name)
    assert names.most_common(1)[0][1] == 1


def test_torchvisions_rows_are_torchvisions() -> None:
    """Addresses, AP and sizes as its own enums have them, so a change of theirs is noticed."""
    names = ("torchvision/mask-rcnn-r50-fpn-coco", "torchvision/mask-rcnn-r50-fpn-v2-coco")
    for name, weights in zip(names, (V1.COCO_V1, V2.COCO_V1), strict=True):
        row, meta = find(name), weights.meta
        assert row.address == weights.url
        published = meta["_metrics"]["COCO-val2017"]
        assert (row.box_ap, row.mask_ap) == pytest.approx(
            (published["box_map"] / 100, published["mask_map"] / 100)
        )
        assert row.megabytes == pytest.approx(meta["_file_size"], abs=0.05)


@pytest.mark.parametrize(
    ("name", "box", "mask", "conventions"),
    [
        ("mmdetection/mask-rcnn-r50-fpn-ms-poly-3x", 0.409, 0.371, "mmdetection-pytorch"),
        ("mmdetection/mask-rcnn-r101-fpn-ms-poly-3x", 0.427, 0.385, "mmdetection-pytorch"),
        ("mmdetection/mask-rcnn-x101-32x4d-fpn-ms-poly-3x", 0.436, 0.390, "mmdetection-pytorch"),
        ("mmdetection/mask-rcnn-x101-32x8d-fpn-ms-poly-3x", 0.443, 0.395, "mmdetection-x101-32x8d"),
        ("mmdetection/mask-rcnn-x101-64x4d-fpn-ms-poly-3x", 0.445, 0.397, "mmdetection-pytorch"),
        ("mmdetection/mask-rcnn-r50-caffe-fpn-ms-poly-3x", 0.408, 0.370, "mmdetection-caffe"),
        ("detectron2/mask-rcnn-r50-fpn-3x", 0.410, 0.372, "detectron2-r50"),
        ("detectron2/mask-rcnn-r101-fpn-3x", 0.429, 0.386, "detectron2-r50"),
        ("detectron2/mask-rcnn-x101-32x8d-fpn-3x", 0.443, 0.395, "detectron2-x101"),
    ],
)
def test_the_rows_that_most_people_hold(
    name: str, box: float, mask: float, conventions: str
) -> None:
    """Their AP and conventions, as the publishers' tables and configs state them."""
    row = find(name)
    assert (row.box_ap, row.mask_ap, row.conventions) == (box, mask, conventions)
    assert row.training_gb is not None


def test_what_cannot_run_is_listed_too() -> None:
    """C4, DC5, group norm, LVIS, Cityscapes, other backbones: by name and reason."""
    reasons = {row.name: row.reason for row in PUBLISHED.values() if row.reason}
    assert "C4" in reasons["detectron2/mask-rcnn-r50-c4-3x"]
    assert "DC5" in reasons["detectron2/mask-rcnn-r50-dc5-3x"]
    assert "group norm" in reasons["detectron2/mask-rcnn-r50-fpn-3x-gn"]
    assert "LVIS" in reasons["detectron2/mask-rcnn-r50-fpn-1x-lvis-v0.5"]
    assert "batch norm" in reasons["detectron2/mask-rcnn-r50-fpn-100ep-lsj"]
    assert {row.family for row in RUNS} == set(FAMILIES)
    assert len(RUNS) >= 39
    assert len(reasons) >= 120


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        pytest.param("detectron2/mask-rcnn-r50-fpn-4x", "detectron2/mask-rcnn-r50-fpn-3x", id="digit"),
        pytest.param("mask-rcnn-r50-fpn-ms-poly-3x", "mmdetection/mask-rcnn-r50-fpn-ms-poly-3x", id="no family"),
        pytest.param("detectron2/mask_rcnn_R_50_FPN_3x", "detectron2/mask-rcnn-r50-fpn-3x", id="their spelling"),
        pytest.param("torchvision/mask-rcnn-r50-fpn", "torchvision/mask-rcnn-r50-fpn-coco", id="cut short"),
    ],
)  # fmt: skip
def test_a_mistyped_name_gets_the_nearest(wrong: str, right: str) -> None:
    """In the message, first or among the first."""
    assert right in nearest(wrong)
    with pytest.raises(UsageError, match=re.escape(right)):
        find(wrong)


@pytest.mark.parametrize("wrong", ["", "/", "qqqq", "zoo/\x1b[31m"])
def test_a_name_like_no_other(wrong: str) -> None:
    """No suggestion is better than a wild one."""
    assert nearest(wrong) == []
    with pytest.raises(UsageError, match="segcli models list"):
        find(wrong)


def test_json_values() -> None:
    """A row as JSON says its family and whether it runs."""
    row = find("detectron2/mask-rcnn-r50-c4-1x").to_json()
    assert row["family"] == "detectron2"
    assert row["supported"] is False
    assert row["megabytes"] is None
