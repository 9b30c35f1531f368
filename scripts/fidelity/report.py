"""The page of differences."""

from __future__ import annotations

from dataclasses import dataclass

from fidelity.stages import Difference

_INTRO = """# Fidelity

Made by `scripts/make_fidelity.py` ({made_with}). Do not edit by hand.

Every published family's weights run in one network (`models/mask_rcnn.py`); what the families do differently is data
(`models/conventions.py`, `models/presets.py`). This page shows how far its outputs are from those of the families' own
code with the same weights. The weights are seeded random ones that find tens of objects per picture; a wrong choice
in any convention that they can show changes a hundred detections.

## Against recorded outputs

Recorded from detectron2 (@02b5c4e2), mmdetection 3.3.0 and torchvision 0.29.1 on real photos. The path is that of
`segcli predict`, batch norms folded and convolutions fused. Every number is the largest over all pictures. `relative`
is divided by the tensor's largest value; boxes are in pixels of the original picture; `input bits` is 0 where the
padded input has the recorded hash. A mask is within its tolerance by 10 pixels or by an overlap of 0.999: a large one
may differ in more pixels.

"""
_BESIDE = """
## Beside torchvision's own code

The same weights in torchvision's own network, run in the same process on photos of COCO. Equal outputs mean the same
detections and labels, boxes within 0.01 px, scores within 2e-4, masks within 10 px or an overlap of 0.999.

`predict` is the path of `segcli predict`; `network` is the network without folded norms and with torchvision's
RoIAlign, where every operation is torchvision's. torchvision cuts a box to whole pixels before it resizes the mask into
it, so that boxes 1e-4 px apart give masks that are one row or column apart where a whole pixel lies between them. Such
masks are counted by themselves: pasted at torchvision's box, ours are within the tolerance.

"""


@dataclass(frozen=True)
class Table:
    """One model.

    Attributes:
        name: of the model.
        preset: its conventions.
        rows: differences by picture.
    """

    name: str
    preset: str
    rows: dict[str, list[Difference]]

    @property
    def within(self) -> bool:
        """Whether all differences are tolerated."""
        return all(d.within for differences in self.rows.values() for d in differences)

    @property
    def pictures(self) -> str:
        """How many, and which where they are few."""
        count = len(self.rows)
        names = f" ({', '.join(self.rows)})" if count <= 5 else ""
        return f"{count} picture{'' if count == 1 else 's'}{names}"

    def worst(self) -> list[Difference]:
        """The largest difference of each stage."""
        columns = zip(*self.rows.values(), strict=True)
        return [max(column, key=lambda d: d.value) for column in columns]


def report(recorded: list[Table], beside: list[Table], made_with: str) -> str:
    """The page, Markdown."""
    parts = [_INTRO.format(made_with=made_with), *(_table(t) for t in recorded)]
    if beside:
        parts.append(_BESIDE)
        parts += [_table(t) for t in beside]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _table(table: Table) -> str:
    verdict = "." if table.within else "; **out of tolerance**."
    lines = [
        f"### {table.name}",
        "",
        f"Conventions `{table.preset}`; {table.pictures}{verdict}",
        "",
        "| stage | largest difference | tolerated | unit |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {d.stage} | {_number(d.value)}{'' if d.within else ' **out**'} | {_number(d.limit)} | {d.unit} |"
        for d in table.worst()
    ]
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    if value == float("inf"):
        return "–"
    return f"{value:.0f}" if value == int(value) else f"{value:.1e}"
