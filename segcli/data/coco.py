"""COCO json → `Dataset`. What is wrong is named, counted and left out; fatal only when nothing usable is left."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segcli.annotations import Annotation, Dataset, Picture
from segcli.data.classes import read_categories
from segcli.data.entries import PictureEntry, read_entries
from segcli.data.findings import Fault, Findings, as_id
from segcli.data.objects import Frame, ObjectReader
from segcli.data.pictures import PictureFile, check_pictures, choose_finder
from segcli.errors import DataError

KEYS = ("images", "annotations", "categories")
_MANY_CROWDS = 0.5  # COCO itself has 1 %


def read_coco(
    source: Path,
    images: Path | None = None,
    *,
    need_pictures: bool = True,
    crowd_as_instance: bool = False,
) -> Dataset:
    """Read a dataset to train on or to evaluate against.

    Args:
        source: the COCO json.
        images: folder of the pictures; None = looked for near `source`, and the choice is said.
        need_pictures: find every picture file and check its header; else no file but `source` is looked at.
        crowd_as_instance: take `iscrowd` annotations as ordinary ones.

    Returns:
        What is usable, and in `problems` what is wrong with the rest.

    Raises:
        DataError: `source` is no COCO json, or nothing in it is usable.
        UsageError: `images` is no folder.
    """
    dataset = survey_coco(
        source, images, need_pictures=need_pictures, crowd_as_instance=crowd_as_instance
    )
    refuse_unusable(dataset)
    return dataset


def survey_coco(
    source: Path,
    images: Path | None = None,
    *,
    need_pictures: bool = True,
    crowd_as_instance: bool = False,
) -> Dataset:
    """As `read_coco`, but a dataset of which nothing is usable is returned too, with its problems."""
    source = Path(source)
    table = load_coco(source)
    findings = Findings(source.name)
    categories, labels = read_categories(table["categories"], findings)
    entries, indices = read_entries(table["images"], findings, need_names=need_pictures)
    if need_pictures:
        found = _find_pictures(source, images, entries, findings)
    else:
        found = _Found(None, _sizes_without_files(entries, table["annotations"], findings))
    frames = {i: Frame(entries[i].file_name, file.size) for i, file in found.files.items()}
    reader = ObjectReader(labels, indices, frames, findings, crowd_as_instance)
    objects: dict[int, list[Annotation]] = {index: [] for index in frames}
    for index, annotation in reader.read(table["annotations"]):
        objects[index].append(annotation)
    _note_crowds(objects.values(), findings)
    pictures = [
        Picture(e.id, e.file_name, file.path, file.size, tuple(objects[i]), file.raw_pixels)
        for i, file in found.files.items()
        for e in (entries[i],)
    ]
    return Dataset(source, found.folder, tuple(pictures), categories, tuple(findings.rows))


def refuse_unusable(dataset: Dataset) -> None:
    """Stop where nothing can be learnt from or measured against.

    Raises:
        DataError: no picture is usable, or no annotation, or all of them are `iscrowd`.
    """
    crowds = [a.iscrowd for p in dataset.pictures for a in p.annotations]
    if not all(crowds):
        return
    if crowds:
        raise DataError(
            f"{dataset.source}: all {len(crowds)} annotations are iscrowd, which training ignores and evaluation"
            " does not count; if each is one object (CVAT's bitmap export), add --crowd-as-instance"
        )
    what = "annotation" if dataset.pictures else "picture"
    raise DataError(f"{dataset.source}: no usable {what}: {_commonest(dataset, what)}")


def _commonest(dataset: Dataset, what: str) -> str:
    left_out = [p for p in dataset.problems if p.left_out]
    if what == "picture":  # else the annotations, which all lack their picture, would be named
        left_out = [p for p in left_out if p.where.startswith(f"{dataset.source.name}: picture ")]
    if not left_out:
        return f"the list of {what}s is empty; export the dataset with its {what}s"
    kind, count = Counter(p.kind for p in left_out).most_common(1)[0]
    first = next(p for p in left_out if p.kind == kind)
    return f"{count} × {kind}, first {first.where}: {first.found}; {first.remedy}"


def load_coco(source: Path) -> dict[str, Any]:
    """Read the json and check that it is COCO's.

    Raises:
        DataError: unreadable, no JSON, or JSON of another kind.
    """
    try:
        table = json.loads(source.read_bytes())
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror})") from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"{source}: not JSON at line {error.lineno}, column {error.colno} ({error.msg});"
            " the file is damaged, cut off or of another format: export it anew"
        ) from error
    except (ValueError, RecursionError) as error:  # no UTF-8, numbers of thousands of digits, …
        reason = type(error).__name__ if isinstance(error, RecursionError) else error
        raise DataError(
            f"{source}: not JSON ({reason}); expected a COCO annotation file"
        ) from error
    if not isinstance(table, dict):
        raise DataError(
            f"{source}: {_what_else(table)}; expected a COCO file with {', '.join(KEYS)}"
        )
    for key in KEYS:
        if not isinstance(table.get(key), list):
            raise DataError(f"{source}: {_what_is_wrong(table, key)}")
    return table


def _what_else(table: Any) -> str:
    """What a JSON file holds that is no object."""
    if isinstance(table, list) and table and isinstance(table[0], dict) and "image_id" in table[0]:
        return "a list of results (predictions), no dataset; it goes after --predictions"
    return f"holds a {type(table).__name__} at the top"


def _what_is_wrong(table: dict[str, Any], key: str) -> str:
    """Why `table` has no list `key`."""
    if key in table:
        return f"`{key}` is a {type(table[key]).__name__}, expected a list"
    rows = list(table.values())[:1]
    regions = rows and isinstance(rows[0], dict) and "regions" in rows[0]
    if regions or "_via_img_metadata" in table:
        other = "looks like a file of VGA Image Annotator"
    elif "shapes" in table and "imagePath" in table:
        other = "looks like a file of LabelMe"
    else:
        other = f"no key `{key}`, found {', '.join(map(str, list(table)[:6])) or 'none'}"
    return f"{other}; expected a COCO file with {', '.join(KEYS)}: export the dataset as COCO"


@dataclass(frozen=True)
class _Found:
    """The folder of the pictures, and the usable ones by index of their entry."""

    folder: Path | None
    files: dict[int, PictureFile]


def _find_pictures(
    source: Path, images: Path | None, entries: list[PictureEntry], findings: Findings
) -> _Found:
    finder = choose_finder(source, images, [e.file_name for e in entries])
    files: dict[int, PictureFile] = {}
    owners: dict[Path | None, PictureEntry] = {}
    for index, (entry, result) in enumerate(check_pictures(entries, finder)):
        where = f"picture {entry.id} ({entry.file_name})"
        if isinstance(result, Fault):
            findings.left_out(where, result)
        elif (owner := owners.setdefault(result.path, entry)) is not entry:
            found = f"{result.path} is already picture {owner.id} ({owner.file_name})"
            remedy = "give --images the folder above, so that each file_name leads to its own file"
            findings.left_out(where, Fault("file of another picture", found, remedy))
        else:
            _note_frame(where, entry, result, findings)
            files[index] = result
    return _Found(finder.folder if finder else None, files)


def _note_frame(where: str, entry: PictureEntry, file: PictureFile, findings: Findings) -> None:
    if entry.size is None:
        fault = Fault("picture without size", "no usable height and width", "taken from the file")
        findings.kept(where, fault)
    if file.raw_pixels:
        found = f"annotated at {file.size[1]} × {file.size[0]}, the size without EXIF rotation"
        remedy = "its pixels are used unrotated, as annotated"
        findings.kept(where, Fault("annotated without EXIF rotation", found, remedy))


def _sizes_without_files(
    entries: list[PictureEntry], rows: list[Any], findings: Findings
) -> dict[int, PictureFile]:
    """Sizes from the json alone: of the picture, or else of its run lengths."""
    lacking = any(entry.size is None for entry in entries)
    of_masks = _sizes_of_masks(rows) if lacking else {}
    files: dict[int, PictureFile] = {}
    for index, entry in enumerate(entries):
        size = entry.size or of_masks.get(str(entry.id))
        where = f"picture {entry.id} ({entry.file_name})"
        fault = Fault("picture without size", "no usable height and width", "add both")
        if size is None:
            findings.left_out(where, fault)
            continue
        if entry.size is None:
            findings.kept(where, fault._replace(remedy="taken from its run lengths"))
        files[index] = PictureFile(None, size)
    return files


def _sizes_of_masks(rows: list[Any]) -> dict[str, tuple[int, int]]:
    """(H, W) of the first RLE of each picture, by its id as text."""
    sizes: dict[str, tuple[int, int]] = {}
    for row in rows:
        picture_id = as_id(row.get("image_id")) if isinstance(row, dict) else None
        size = None if picture_id is None else _mask_size(row.get("segmentation"))
        if size is not None:
            sizes.setdefault(str(picture_id), size)
    return sizes


def _mask_size(segmentation: Any) -> tuple[int, int] | None:
    size = segmentation.get("size") if isinstance(segmentation, dict) else None
    if not isinstance(size, list) or len(size) != 2:
        return None
    possible = all(isinstance(v, int) and 0 < v < 2**16 for v in size)
    return (size[0], size[1]) if possible else None


def _note_crowds(objects: Iterable[list[Annotation]], findings: Findings) -> None:
    """CVAT writes every mask as `iscrowd`; say so before training silently ignores them."""
    crowds = [a.iscrowd for annotations in objects for a in annotations]
    if crowds and sum(crowds) > _MANY_CROWDS * len(crowds):
        found = f"{sum(crowds)} of {len(crowds)} annotations"
        remedy = "ignored in training; if each is one object (CVAT's bitmap export), add --crowd-as-instance"
        findings.kept("", Fault("most annotations are iscrowd", found, remedy))
