"""Classes: their names, and their ids in the dataset they came from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from segcli.errors import DataError

# torchvision's COCO head has 90 foreground slots of which 10 were never annotated.
PLACEHOLDER_NAMES = frozenset({"N/A", "__background__"})


@dataclass(frozen=True)
class Categories:
    """The only place that maps dataset ids to labels and back.

    A *label* is an index into `names`, 0-based, without a background class.

    Attributes:
        names: one name per label.
        ids: the id that the dataset uses for each label; int or str, unique.
    """

    names: tuple[str, ...]
    ids: tuple[int | str, ...]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.ids):
            raise DataError(f"categories: {len(self.names)} names but {len(self.ids)} ids")
        if len(set(self.ids)) != len(self.ids):
            raise DataError(f"categories: ids must be unique, found {list(self.ids)}")

    @classmethod
    def from_names(cls, names: Sequence[str]) -> Categories:
        """Number `names` from 1, as COCO files do."""
        return cls(tuple(names), tuple(range(1, len(names) + 1)))

    @classmethod
    def from_coco(cls, entries: Iterable[dict[str, Any]]) -> Categories:
        """Read the `categories` list of a COCO file; the order of labels is the order of ids."""
        rows = list(entries)
        numeric = all(isinstance(row["id"], int) for row in rows)
        rows.sort(key=lambda row: row["id"] if numeric else str(row["id"]))
        return cls(tuple(str(row["name"]) for row in rows), tuple(row["id"] for row in rows))

    def __len__(self) -> int:
        return len(self.names)

    def label_of_id(self) -> dict[int | str, int]:
        """Dataset id to label."""
        return {category_id: label for label, category_id in enumerate(self.ids)}

    def label_of_name(self) -> dict[str, int]:
        """Name to label, placeholders left out; the first of two equal names wins."""
        table: dict[str, int] = {}
        for label, name in enumerate(self.names):
            if name not in PLACEHOLDER_NAMES:
                table.setdefault(name, label)
        return table

    def is_placeholder(self, label: int) -> bool:
        """Whether the slot exists in the head but stands for no class."""
        return self.names[label] in PLACEHOLDER_NAMES

    def to_coco(self) -> list[dict[str, Any]]:
        """The `categories` list of a COCO file."""
        return [{"id": i, "name": n} for i, n in zip(self.ids, self.names, strict=True)]
