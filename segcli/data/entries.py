"""The `images` list of a COCO file, checked, before any picture file is looked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from segcli.data.findings import Fault, Findings, Id, IdTable, as_id, as_number, short

LEFT_OUT = -1
_MOST_PIXELS = 2**31  # more is a mistake in the file: run lengths are counted in 32 bits


@dataclass(frozen=True)
class PictureEntry:
    """One row of `images`.

    Attributes:
        id: as in the file.
        file_name: as in the file.
        size: (H, W) in pixels as annotated; None where it is not given.
    """

    id: Id
    file_name: str
    size: tuple[int, int] | None


def read_entries(
    rows: list[Any], findings: Findings, *, need_names: bool
) -> tuple[list[PictureEntry], IdTable[int]]:
    """Check `images`.

    Rows of one `file_name` become one entry, since predictions are joined by name.

    Args:
        rows: as in the json.
        findings: takes what is wrong.
        need_names: leave out rows without `file_name`; else their id is the name.

    Returns:
        The entries, and for each id of the file the entry's index, or `LEFT_OUT`.
    """
    entries: list[PictureEntry] = []
    index_of_id: dict[Id, int] = {}
    index_of_name: dict[str, int] = {}
    for place, row in enumerate(rows, 1):
        picture_id = _id_of(row, place, index_of_id, findings)
        if picture_id is None:
            continue
        entry = _entry_of(row, picture_id, findings, need_names=need_names)
        if entry is None:
            index_of_id[picture_id] = LEFT_OUT
            continue
        index = index_of_name.setdefault(entry.file_name, len(entries))
        index_of_id[picture_id] = index
        if index == len(entries):
            entries.append(entry)
        else:
            found = f"{short(entry.file_name)} is also picture {entries[index].id}"
            fault = Fault("file_name used twice", found, "taken as one picture, annotations joined")
            findings.kept(f"picture {picture_id}", fault)
    return entries, IdTable(index_of_id)


def _id_of(row: Any, place: int, taken: dict[Id, int], findings: Findings) -> Id | None:
    where = f"picture {place} of the list"
    if not isinstance(row, dict):
        findings.left_out(where, Fault("row that is no object", short(row), "write {…} rows"))
        return None
    picture_id = as_id(row.get("id"))
    if picture_id is None:
        fault = Fault("picture without id", f"id {short(row.get('id'))}", "give it a number")
        findings.left_out(where, fault)
    elif picture_id in taken:
        found = f"file_name {short(row.get('file_name'))}"
        remedy = "the first picture of that id is kept; give this one an id of its own"
        findings.left_out(f"picture {picture_id}", Fault("picture id used twice", found, remedy))
        return None
    return picture_id


def _entry_of(
    row: dict[str, Any], picture_id: Id, findings: Findings, *, need_names: bool
) -> PictureEntry | None:
    name = row.get("file_name")
    if not isinstance(name, str) or not name.strip():
        fault = Fault("picture without file_name", f"file_name {short(name)}", "name its file")
        if need_names:
            findings.left_out(f"picture {picture_id}", fault)
            return None
        findings.kept(f"picture {picture_id}", fault._replace(remedy="joined by its id alone"))
        name = str(picture_id)
    return PictureEntry(picture_id, name, _size_of(row))


def _size_of(row: dict[str, Any]) -> tuple[int, int] | None:
    """(H, W) in pixels; None where it is absent or makes no sense."""
    height, width = as_number(row.get("height")), as_number(row.get("width"))
    if height is None or width is None or not (height.is_integer() and width.is_integer()):
        return None
    possible = height >= 1 and width >= 1 and height * width < _MOST_PIXELS
    return (int(height), int(width)) if possible else None
