"""Who takes part in `segcli bench train`, and what each is asked to do. Standard library only, for the help page."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

STOCK = "stock"
CONTESTANTS = (STOCK, "fp32", "auto")


@dataclass(frozen=True)
class TrainTask:
    """Training steps on the same batches, the same for every contestant.

    Attributes:
        dataset: the COCO json.
        images: folder of its pictures; None = looked for near it.
        model: ARCH or MODEL.
        batch_size: pictures per step.
        pictures: how many are trained on.
        instances: fewest objects of a picture.
        min_size: shorter side fed to the network, pixels; None = the model's own.
        max_size: longest side fed to the network, pixels; None = the model's own.
        device: as of `--device`.
        threads: of the CPU; None = torch's own.
    """

    dataset: str
    images: str | None
    model: str
    batch_size: int = 2
    pictures: int = 2
    instances: int = 1
    min_size: int | None = None
    max_size: int | None = None
    device: str = "cpu"
    threads: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `TrainTask(**…)` reads them."""
        return asdict(self)
