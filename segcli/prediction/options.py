"""What a prediction job writes and how it treats what is there. None of this changes predictions."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from segcli.config import DrawConfig


@dataclass(frozen=True)
class JobOptions:
    """Flags of `segcli predict` that may change from start to start.

    Attributes:
        output: the OUT folder.
        command: which command it is, for `config.toml`.
        limit: run only the first so many pictures of the plan (rounded up to whole batches); None = all.
        overwrite: begin anew in a folder of ours.
        drop_vanished: go on although over a tenth of the planned pictures are gone.
        coco_json: write `predictions.json`.
        overlays: draw the objects on the pictures.
        masks: write instance-id PNGs.
        csv: write `instances.csv` and `counts.csv`.
        profile: print where the time went.
        draw: lowest score and look of all of these.
    """

    output: Path
    command: str
    limit: int | None = None
    overwrite: bool = False
    drop_vanished: bool = False
    coco_json: bool = True
    overlays: bool = False
    masks: bool = False
    csv: bool = False
    profile: bool = False
    draw: DrawConfig = field(default_factory=DrawConfig)
