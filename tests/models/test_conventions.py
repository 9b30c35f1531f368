"""The convention records: what they hold, how they are written and read, and the table of the families' differences."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tomli_w import dumps

from segcli.models.conventions import OWN, SCHEMA, Conventions, Numerics, Preprocess
from segcli.models.presets import PRESETS, ROWS, from_table, name_of, preset

SCHEMA_1: dict[str, Any] = {
    "schema": 1,
    "preprocess": {
        "min_size": 320, "max_size": 640, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
        "pad_multiple": 32,
    },
    "numerics": {
        "bn_eps": 0.0, "roi_aligned": True, "roi_sampling_ratio": 2, "level_rule": "torchvision",
    },
    "postprocess": {
        "nms_iou": 0.5, "max_detections": 77, "mask_paste": "pixel_centres", "mask_inclusive": True,
    },
}  # fmt: skip


def _field(path: str) -> dataclasses.Field[Any]:
    record, name = path.split(".")
    kinds = {f.name: f for f in dataclasses.fields(getattr(OWN, record))}
    return kinds[name]


def test_every_row_of_the_reference_has_its_place(shared: Callable[[str], Path]) -> None:
    """All numbered differences of the reference are in the table, and no other."""
    text = shared("reference/conventions.md").read_text(encoding="utf-8")
    section = text.split("### 4.3")[1].split("### 4.4")[0]
    numbers = {int(n) for n in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)}
    assert numbers == set(ROWS) == set(range(1, 39))


@pytest.mark.parametrize("row", sorted(ROWS))
def test_a_row_names_fields_or_says_why_none(row: int) -> None:
    """Fields exist; everything else has its reason."""
    kind, _, reason = ROWS[row].partition(": ")
    if kind in ("equal", "reason"):
        assert len(reason) > 2
    else:
        for path in ROWS[row].split():
            assert _field(path)


def test_every_field_belongs_to_a_row() -> None:
    """A field that no row names would be a difference that nobody knew of."""
    named = {
        path for row in ROWS.values() for path in row.split() if re.fullmatch(r"[a-z]+\.\w+", path)
    }
    every = {
        f"{record.name}.{f.name}"
        for record in dataclasses.fields(OWN)
        for f in dataclasses.fields(getattr(OWN, record.name))
    }
    assert every == named


@pytest.mark.parametrize("row", [2, 4, 5, 6, 9, 12, 13, 15, 17, 18, 24, 27, 28, 30, 31, 34, 35, 37])
def test_the_families_differ_where_the_reference_says_so(row: int) -> None:
    """At least two presets have other values in such a row."""
    values = {
        tuple(str(getattr(getattr(p, r), f)) for r, f in (n.split(".") for n in ROWS[row].split()))
        for p in PRESETS.values()
    }
    assert len(values) > 1


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_survive_json_and_toml(name: str) -> None:
    """Written and read, they are the same, and keep their name."""
    import tomllib

    table = PRESETS[name].to_dict()
    assert table["schema"] == SCHEMA
    assert from_table(json.loads(json.dumps(table))) == PRESETS[name]
    assert from_table(tomllib.loads(dumps(table))) == PRESETS[name]
    assert name_of(preset(name)) == name


def test_all_presets_differ() -> None:
    """Two of one content would make a name ambiguous."""
    assert len(set(PRESETS.values())) == len(PRESETS)
    assert name_of(dataclasses.replace(OWN, preprocess=Preprocess(min_size=1))) is None


def test_a_record_of_schema_1_is_read_with_the_behaviour_of_its_time() -> None:
    """What it lacks has the default, what it says stays."""
    read = Conventions.from_dict(SCHEMA_1)
    assert (read.preprocess.min_size, read.postprocess.max_detections) == (320, 77)
    assert read.numerics == Numerics(bn_eps=0.0, roi_aligned=True)
    assert read.preprocess == Preprocess(min_size=320, max_size=640)
    assert Conventions.from_dict(read.to_dict()) == read


def test_changes_to_a_preset() -> None:
    """A file may name a preset and what differs."""
    found = from_table({"base": "detectron2-r50", "preprocess": {"min_size": 640}})
    assert found.preprocess.min_size == 640
    assert found.numerics == PRESETS["detectron2-r50"].numerics
    layout = from_table({"base": "segcli", "numerics": {"class_layout": {"background": "last"}}})
    assert layout.numerics.class_layout.background == "last"
    assert layout.numerics.class_layout.box_has_background


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base": "detectron3"}, "no conventions named 'detectron3'; known: torchvision-v1"),
        ({"base": "segcli", "numeric": {}}, "have no 'numeric'"),
        ({"base": "segcli", "numerics": {"eps": 1.0}}, "numerics has no field 'eps'"),
        ({"base": "segcli", "numerics": {"rpn_rank": "softmax"}}, "expected logit_then_sigmoid or"),
        ({"base": "segcli", "numerics": {"bn_eps": "0"}}, "numerics.bn_eps: '0', expected float"),
        ({"base": "segcli", "numerics": {"roi_aligned": 1}}, "expected bool"),
        ({"base": "segcli", "numerics": []}, "numerics: found \\[\\], expected a table"),
        ({"base": "segcli", "preprocess": {"mean": [1, 2]}}, "expected 3 numbers"),
        ({"base": "segcli", "preprocess": {"min_size": 800.5}}, "expected int"),
        ({"base": "segcli", "preprocess": {"min_size": True}}, "expected int"),
        (
            {"base": "segcli", "preprocess": {"resize": "cv2_linear"}},
            "normalize_first must be false",
        ),
        (
            {"base": "segcli", "numerics": {"class_layout": {"row": 0}}},
            "class_layout has no field 'row'",
        ),
        ({}, "conventions of schema None, this program reads 1 and 2"),
        ({"schema": 3}, "conventions of schema 3"),
        ({"schema": 1}, "preprocess is missing"),
        ({**OWN.to_dict(), "other": 1}, "unknown: other"),
        ({**OWN.to_dict(), "numerics": {}}, "numerics lacks anchor_offset"),
    ],
)
def test_bad_records_are_refused(change: dict[str, Any], message: str) -> None:
    """One line each: what was found, what was expected."""
    with pytest.raises(ValueError, match=message) as error:
        from_table(change)
    assert "\n" not in str(error.value)
