"""The published Mask R-CNN weights of torchvision, detectron2 and mmdetection: facts, each with its source."""

from __future__ import annotations

import difflib
import json
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any, Literal

from segcli.errors import UsageError

FAMILIES = ("torchvision", "detectron2", "mmdetection")
_SCHEMA = 1


@dataclass(frozen=True)
class PublishedWeights:
    """Weights that somebody published. None = the publisher does not say.

    Attributes:
        name: as given to `--model`: the family, a `/`, the model.
        backbone: with the neck, e.g. `R-50-FPN`.
        schedule: training length; `1x` is 12 epochs of COCO, `ms` multi-scale, `LSJ` large-scale jitter.
        dataset: on whose validation part AP was measured; `COCO` is val2017.
        box_ap: published, fraction.
        mask_ap: likewise.
        training_gb: GPU memory in training, GB.
        megabytes: size of the download.
        licence: of the weights, or of the project that publishes them.
        address: where they are; None where no file can be fetched directly.
        hash_kind: `sha256` (torchvision, mmdetection's `publish_model.py`) or `md5` (detectron2's MODEL_ZOO).
        hash_prefix: the file's first hash digits, from its published name; None where the name has none.
        source: the page that all this was read from.
        architecture: name in `segcli.models.ARCHITECTURES`; None where segcli cannot run it.
        conventions: name in `segcli.models.PRESETS`; likewise.
        reason: why segcli cannot run it; None where it can.
    """

    name: str
    backbone: str
    schedule: str | None
    dataset: str
    box_ap: float | None
    mask_ap: float | None
    training_gb: float | None
    megabytes: float | None
    licence: str | None
    address: str | None
    hash_kind: Literal["sha256", "md5"] | None
    hash_prefix: str | None
    source: str
    architecture: str | None
    conventions: str | None
    reason: str | None

    @property
    def family(self) -> str:
        """The part of the name before the `/`."""
        return self.name.split("/", 1)[0]

    @property
    def file_name(self) -> str | None:
        """Last part of the address, and the file's name in the cache."""
        return self.address.rsplit("/", 1)[-1] if self.address else None

    def to_json(self) -> dict[str, Any]:
        """All fields, with the family and whether segcli runs it."""
        return {"family": self.family, "supported": self.reason is None, **asdict(self)}


def _read() -> dict[str, PublishedWeights]:
    table = json.loads((files(__name__) / "zoo.json").read_text(encoding="utf-8"))
    if table["schema"] != _SCHEMA:
        raise ValueError(f"zoo.json: schema {table['schema']}, expected {_SCHEMA}")
    return {row["name"]: PublishedWeights(**row) for row in table["weights"]}


PUBLISHED: dict[str, PublishedWeights] = _read()


def find(name: str) -> PublishedWeights:
    """Published weights by name.

    Raises:
        UsageError: there are none of that name; the nearest names are suggested.
    """
    if name in PUBLISHED:
        return PUBLISHED[name]
    near = nearest(name)
    hint = f"; nearest: {', '.join(near)}" if near else ""
    raise UsageError(f"{name}: no published weights of that name{hint} (`segcli models list`)")


def nearest(name: str, count: int = 3) -> list[str]:
    """The names most like a mistyped one, best first; with or without the family, in any case."""
    wanted = name.lower().replace("_", "-")
    of_model = {full.split("/", 1)[1]: full for full in reversed(PUBLISHED)}
    choices = list(PUBLISHED) if "/" in wanted else list(of_model)
    found = difflib.get_close_matches(wanted, choices, n=count, cutoff=0.6)
    return [of_model.get(choice, choice) for choice in found]
