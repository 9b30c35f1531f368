"""Predicted (or drawn) objects of one picture. Filtering is slicing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from segcli.masks import Index, Masks


@dataclass(frozen=True, eq=False)
class Instances:
    """N objects of one picture; every field is given per object, in the original picture's frame.

    Attributes:
        image_size: (H, W) in pixels.
        boxes: float32 (N, 4), xyxy in pixels.
        labels: int32 (N,), index into `Categories`, 0-based, no background.
        scores: float32 (N,) in 0..1, or None for annotations.
        masks: `Masks` of the same size, or None.
        keypoints: float32 (N, K, 3), x, y in pixels and a score, or None.
        track_ids: int64 (N,), or None.
    """

    image_size: tuple[int, int]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int32]
    scores: NDArray[np.float32] | None = None
    masks: Masks | None = None
    keypoints: NDArray[np.float32] | None = None
    track_ids: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        n = len(self.boxes)
        if self.boxes.shape != (n, 4):
            raise ValueError(f"boxes: expected shape (N, 4), found {self.boxes.shape}")
        for name in ("labels", "scores", "masks", "keypoints", "track_ids"):
            value: Sequence[object] | None = getattr(self, name)
            if value is not None and len(value) != n:
                raise ValueError(f"{name}: expected {n} rows, one per box, found {len(value)}")
        if self.masks is not None and self.masks.size != self.image_size:
            raise ValueError(
                f"masks of size {self.masks.size} on a picture of size {self.image_size}"
            )

    @classmethod
    def empty(cls, image_size: tuple[int, int]) -> Instances:
        """No objects on a picture of (H, W) pixels; scores and masks are there, and empty."""
        return cls(
            image_size=image_size,
            boxes=np.zeros((0, 4), np.float32),
            labels=np.zeros(0, np.int32),
            scores=np.zeros(0, np.float32),
            masks=Masks.empty(image_size),
        )

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: Index) -> Instances:
        rows = np.atleast_1d(np.arange(len(self))[index])
        return replace(
            self,
            boxes=self.boxes[rows],
            labels=self.labels[rows],
            scores=None if self.scores is None else self.scores[rows],
            masks=None if self.masks is None else self.masks[rows],
            keypoints=None if self.keypoints is None else self.keypoints[rows],
            track_ids=None if self.track_ids is None else self.track_ids[rows],
        )
