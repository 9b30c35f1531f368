"""The `categories` list of a COCO file, checked: classes, and which label each id of the file stands for."""

from __future__ import annotations

from typing import Any

from segcli.categories import Categories
from segcli.data.findings import Fault, Findings, Id, IdTable, as_id, short


def read_categories(rows: list[Any], findings: Findings) -> tuple[Categories, IdTable[int]]:
    """Check `categories`.

    Two ids of one name become one class, since classes are joined by name.

    Returns:
        The classes, and the label of each id (also of ids that were merged away).
    """
    named: dict[Id, str] = {}
    for place, row in enumerate(rows, 1):
        category_id = _id_of(row, f"category {place}", findings)
        if category_id is None:
            continue
        if category_id in named:
            found = f"names {short(named[category_id])} and {short(row.get('name'))}"
            fault = Fault("category id used twice", found, "the first is kept; give it its own id")
            findings.left_out(f"category {category_id}", fault)
            continue
        named[category_id] = _name_of(row, category_id, findings)
    first = _first_ids(named, findings)
    categories = Categories.from_coco([{"id": i, "name": n} for n, i in first.items()])
    label = categories.label_of_id()
    return categories, IdTable({i: label[first[name]] for i, name in named.items()})


def _id_of(row: Any, where: str, findings: Findings) -> Id | None:
    if not isinstance(row, dict):
        findings.left_out(where, Fault("row that is no object", short(row), "write {…} rows"))
        return None
    category_id = as_id(row.get("id"))
    if category_id is None:
        fault = Fault("category without id", f"id {short(row.get('id'))}", "give it a number")
        findings.left_out(where, fault)
    return category_id


def _name_of(row: dict[str, Any], category_id: Id, findings: Findings) -> str:
    name = row.get("name")
    if isinstance(name, str) and name.strip():
        return name
    if isinstance(name, int | float):
        return str(name)
    made = f"class {category_id}"
    fault = Fault("category without name", f"name {short(name)}", f"it is called {made!r} here")
    findings.kept(f"category {category_id}", fault)
    return made


def _first_ids(named: dict[Id, str], findings: Findings) -> dict[str, Id]:
    """The first id of each name."""
    first: dict[str, Id] = {}
    for category_id, name in named.items():
        if first.setdefault(name, category_id) != category_id:
            found = f"{name!r} is also category {first[name]}"
            fault = Fault("class name used twice", found, "taken as one class; rename one of them")
            findings.kept(f"category {category_id}", fault)
    return first
