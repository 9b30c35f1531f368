"""Who takes part in `segcli bench predict`, and what each is asked to do. Standard library only, for the help page."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

STOCK = "stock"
# settings of `PredictConfig` that make each contestant of ours; what is absent is left to the program
OURS: dict[str, dict[str, Any]] = {
    "fp32": {"precision": "fp32", "compile": False, "cpu_engine": "torch"},
    "auto": {"precision": "auto"},
    "bf16": {"precision": "bf16", "compile": False, "cpu_engine": "torch"},
    "compile": {"precision": "auto", "compile": True, "cpu_engine": "torch"},
    "openvino-bf16": {"precision": "bf16", "compile": False, "cpu_engine": "openvino"},
    "openvino-int8": {"precision": "int8", "compile": False, "cpu_engine": "openvino"},
}
CONTESTANTS = (STOCK, *OURS)


@dataclass(frozen=True)
class Task:
    """One job, the same for every contestant.

    Attributes:
        pictures: the folder.
        model: MODEL as of `--model`.
        score: lowest score kept.
        limit: take only the first so many pictures; None = all.
        min_size: shorter side fed to the network, pixels; None = the model's own.
        max_size: longest side fed to the network, pixels; None = the model's own.
        device: as of `--device`.
        threads: of the CPU; None = torch's own.
    """

    pictures: str
    model: str
    score: float
    limit: int | None = None
    min_size: int | None = None
    max_size: int | None = None
    device: str = "cpu"
    threads: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `Task(**…)` reads them."""
        return asdict(self)
