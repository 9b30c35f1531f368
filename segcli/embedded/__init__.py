"""Weights that come with the package: they work with no network, at once. Each has a model card beside it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class EmbeddedWeights:
    """Weights inside the package.

    Attributes:
        name: as given to `--model`; never holds a `/`, and is no architecture's name.
        architecture: a name in `segcli.models.ARCHITECTURES`.
        finds: what the model was trained to find.
        box_ap: on the validation set that the card names, of this very file, fraction.
        mask_ap: likewise.
        licence: of the weights.
    """

    name: str
    architecture: str
    finds: str
    box_ap: float
    mask_ap: float
    licence: str

    @property
    def path(self) -> Path:
        """The safetensors file, its large tensors in bf16."""
        return Path(__file__).with_name(f"{self.name}.safetensors")

    @property
    def megabytes(self) -> float:
        """Of the file."""
        return self.path.stat().st_size / 1e6

    def to_json(self) -> dict[str, Any]:
        """All fields, with the size and where the card lies."""
        return {**asdict(self), "megabytes": round(self.megabytes, 1), "card": str(self.card)}

    @property
    def card(self) -> Path:
        """The model card, Markdown."""
        return Path(__file__).with_name(f"{self.name}.md")


EMBEDDED: dict[str, EmbeddedWeights] = {
    "nano-nuclei": EmbeddedWeights(
        name="nano-nuclei",
        architecture="mask-rcnn-nano",
        finds="cell nuclei under the microscope",
        box_ap=0.498,
        mask_ap=0.526,
        licence="Apache-2.0",
    )
}
