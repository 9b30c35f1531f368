"""Where the classes lie in the last layers of the heads; it differs between the families and is never permuted.

Softmax sums its terms in the order in which they lie, so moving the background changes the last bits of every score.
Weights therefore keep their own order, and all code asks here which row belongs to which class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

from torch import Tensor

Index = TypeVar("Index", int, Tensor)


@dataclass(frozen=True)
class ClassLayout:
    """Rows of K classes, counted from 0 without the background, in `cls_score`, `bbox_pred` and the mask logits.

    Attributes:
        background: row 0 or row K of `cls_score`; it always has one there.
        box_has_background: `bbox_pred` has a group of four rows for the background too, in the same place.
        mask_has_background: likewise one row of the mask logits.
    """

    background: Literal["first", "last"] = "first"
    box_has_background: bool = True
    mask_has_background: bool = True

    def score_rows(self, classes: int) -> int:
        """Rows of `cls_score`."""
        return classes + 1

    def box_groups(self, classes: int) -> int:
        """Groups of four rows (dx, dy, dw, dh) in `bbox_pred`."""
        return classes + int(self.box_has_background)

    def box_rows(self, classes: int) -> int:
        """Rows of `bbox_pred`: four per group."""
        return 4 * self.box_groups(classes)

    def mask_rows(self, classes: int) -> int:
        """Rows (channels) of the mask logits."""
        return classes + int(self.mask_has_background)

    def background_row(self, classes: int) -> int:
        """Row of the background in `cls_score`."""
        return 0 if self.background == "first" else classes

    def score_row(self, index: Index) -> Index:
        """Row in `cls_score` of the 0-based class `index`, an int or an integer tensor of any shape."""
        return index + self._shift(True)

    def box_group(self, index: Index) -> Index:
        """Group in `bbox_pred` of the 0-based class `index`; its rows are 4 · group … 4 · group + 3."""
        return index + self._shift(self.box_has_background)

    def mask_row(self, index: Index) -> Index:
        """Row in the mask logits of the 0-based class `index`."""
        return index + self._shift(self.mask_has_background)

    def score_classes(self, classes: int) -> slice:
        """The rows of `cls_score` that are classes 0 … K - 1, in this order, without the background."""
        return slice(self._shift(True), self._shift(True) + classes)

    def box_classes(self, classes: int) -> slice:
        """The groups of `bbox_pred` that are classes 0 … K - 1."""
        shift = self._shift(self.box_has_background)
        return slice(shift, shift + classes)

    def mask_classes(self, classes: int) -> slice:
        """The rows of the mask logits that are classes 0 … K - 1."""
        shift = self._shift(self.mask_has_background)
        return slice(shift, shift + classes)

    def _shift(self, has_background: bool) -> int:
        return int(has_background and self.background == "first")


BACKGROUND_FIRST = ClassLayout("first", True, True)  # torchvision, segcli
BACKGROUND_LAST = ClassLayout("last", False, False)  # detectron2, mmdetection from 2.0
