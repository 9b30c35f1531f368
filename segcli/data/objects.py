"""The `annotations` list of a COCO file, checked: each usable row becomes an `Annotation`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segcli.annotations import Annotation
from segcli.data.entries import LEFT_OUT
from segcli.data.findings import Fault, Findings, Id, IdTable, as_id, as_number, short
from segcli.data.segmentation import Shape, read_segmentation

_CROWD = frozenset({1, "1", "true", "True"})  # 1 == True == 1.0


@dataclass(frozen=True)
class Frame:
    """What an annotation must know of its picture.

    Attributes:
        name: `file_name`, for messages.
        size: (H, W) in pixels of the frame that the annotations use.
    """

    name: str
    size: tuple[int, int]


@dataclass
class ObjectReader:
    """Reads rows of `annotations`.

    Attributes:
        labels: label of each category id.
        indices: index of the picture of each picture id, or `LEFT_OUT`.
        frames: what is known of each usable picture, by index.
        findings: takes what is wrong.
        crowd_as_instance: take `iscrowd` annotations as ordinary ones.
        without_picture: annotations met so far whose picture was left out.
        ids: annotation ids met so far.
    """

    labels: IdTable[int]
    indices: IdTable[int]
    frames: Mapping[int, Frame]
    findings: Findings
    crowd_as_instance: bool = False
    without_picture: int = 0
    ids: set[Id] = field(default_factory=set)

    def read(self, rows: list[Any]) -> Iterator[tuple[int, Annotation]]:
        """Usable annotations with the index of their picture, in the order of the file."""
        for place, row in enumerate(rows, 1):
            if not isinstance(row, dict):
                fault = Fault("row that is no object", short(row), "write {…} rows")
                self.findings.left_out(f"annotation {place} of the list", fault)
                continue
            annotation_id = self._id_of(row, place)
            index = self._index_of(row, annotation_id)
            if index is None:
                continue
            annotation = self._annotation(row, annotation_id, self.frames[index])
            if annotation is not None:
                yield index, annotation
        if self.without_picture:
            found = f"{self.without_picture} annotations"
            fault = Fault("annotations of pictures left out", found, "see those pictures")
            self.findings.left_out("", fault)

    def _id_of(self, row: dict[str, Any], place: int) -> Id:
        annotation_id = as_id(row.get("id"))
        if annotation_id is None:
            annotation_id = f"#{place}"
            fault = Fault("annotation without id", f"id {short(row.get('id'))}", "kept")
            self.findings.kept(f"annotation {annotation_id}", fault)
        elif annotation_id in self.ids:
            remedy = "both are kept; evaluation numbers annotations anew"
            fault = Fault("annotation id used twice", f"id {annotation_id!r}", remedy)
            self.findings.kept(f"annotation {annotation_id}", fault)
        self.ids.add(annotation_id)
        return annotation_id

    def _index_of(self, row: dict[str, Any], annotation_id: Id) -> int | None:
        """Index of the row's picture; None where that is unknown (then said) or left out (counted)."""
        image_id = as_id(row.get("image_id"))
        index = None if image_id is None else self.indices.get(image_id)
        if index is None:
            found = f"image_id {short(row.get('image_id'))}"
            remedy = "no row of `images` has that id: add the picture or drop the annotation"
            fault = Fault("unknown image_id", found, remedy)
            self.findings.left_out(f"annotation {annotation_id}", fault)
        elif index == LEFT_OUT or index not in self.frames:
            self.without_picture += 1
            return None
        return index

    def _annotation(
        self, row: dict[str, Any], annotation_id: Id, frame: Frame
    ) -> Annotation | None:
        where = f"annotation {annotation_id} on {frame.name}"
        label = self._label_of(row, where)
        shape = None if label is None else self._shape_of(row, frame.size, where)
        if label is None or shape is None:
            return None
        return Annotation(
            id=annotation_id,
            label=label,
            bbox=self._bbox_of(row, shape, frame.size, where),
            area=self._area_of(row, shape, frame.size, where),
            iscrowd=_is_crowd(row) and not self.crowd_as_instance,
            polygons=shape.polygons,
            rle=shape.rle,
        )

    def _label_of(self, row: dict[str, Any], where: str) -> int | None:
        category_id = as_id(row.get("category_id"))
        label = None if category_id is None else self.labels.get(category_id)
        if label is None:
            known = [str(i) for i in self.labels.ids()]
            listed = ", ".join(known[:8]) + (", …" if len(known) > 8 else "")
            found = f"category_id {short(row.get('category_id'))}; the file has {listed or 'none'}"
            fault = Fault("unknown category_id", found, "add the class or correct the id")
            self.findings.left_out(where, fault)
        return label

    def _shape_of(self, row: dict[str, Any], size: tuple[int, int], where: str) -> Shape | None:
        shape, faults = read_segmentation(row.get("segmentation"), size)
        if shape is None:
            self.findings.left_out(where, faults[0])
            return None
        for fault in faults:
            self.findings.kept(where, fault)
        return shape

    def _bbox_of(
        self, row: dict[str, Any], shape: Shape, size: tuple[int, int], where: str
    ) -> NDArray[np.float64]:
        """The annotated x, y, width, height; that of the mask where it is absent or makes no sense."""
        value = row.get("bbox")
        try:
            bbox = np.array(value, np.float64)
            _, _, width, height = bbox.tolist()
            good = bool(np.isfinite(bbox).all())
            kind = "bbox without size" if good else "bbox not understood"
            good = good and width > 0 and height > 0
        except (TypeError, ValueError, OverflowError):
            good, kind = False, "no bbox" if value in (None, []) else "bbox not understood"
        if good:
            return bbox
        fault = Fault(kind, f"bbox {short(value)}", "computed from the mask")
        self.findings.kept(where, fault)
        return shape.bbox(size)

    def _area_of(
        self, row: dict[str, Any], shape: Shape, size: tuple[int, int], where: str
    ) -> float:
        """The annotated area in square pixels; that of the mask where it is absent or not above 0."""
        area = as_number(row.get("area"))
        if area is not None and area > 0:
            return area
        fault = Fault("no area", f"area {short(row.get('area'))}", "computed from the mask")
        self.findings.kept(where, fault)
        return shape.area(size)


def _is_crowd(row: dict[str, Any]) -> bool:
    value = row.get("iscrowd", 0)
    return isinstance(value, int | float | str) and value in _CROWD
