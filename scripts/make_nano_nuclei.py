#!/usr/bin/env python3
"""Make the embedded model `nano-nuclei`: train, pack in bf16, measure the packed file, write its model card.

    scripts/make_nano_nuclei.py                       # all of it; killed and run again it goes on
    scripts/make_nano_nuclei.py --run RUN             # pack a run that is there
    scripts/make_nano_nuclei.py --data FOLDER         # where train.json, val.json and their pictures lie

The data are 400 pictures of the 2018 Data Science Bowl, stage 1, with the public label fixes (CC0), as COCO files.
The figures in segcli/embedded/__init__.py are to be those that this prints; a test compares them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segcli import config as configuration
from segcli.config import TrainConfig, to_settings
from segcli.errors import ModelError, SegcliError
from segcli.files import sha256, write_bytes
from segcli.images import read_image
from segcli.zoo import LoadedModel, load_model, save_model

REPOSITORY = Path(__file__).resolve().parents[1]
NAME = "nano-nuclei"
LICENCE = "Apache-2.0"
DATA = "2018 Data Science Bowl, stage 1, with the public label fixes (CC0): 320 pictures to train, 80 to validate"
MAX_DETS = 200
# the whole recipe: what `segcli train` gets beside the data and the folder
RECIPE = (
    "--model", "mask-rcnn-nano", "--max-dets", str(MAX_DETS), "--augment", "flip,vflip,rotate90,scale",
    "--seed", "0", "--steps", "1000", "--eval-every", "5",
)  # fmt: skip


def train(data: Path, run: Path) -> None:
    """Train by the recipe, or go on where an earlier start was stopped."""
    files = (str(data / "train.json"), "--val", str(data / "val.json"))
    segcli("train", *files, *RECIPE, "--output", str(run), "--resume")


def packed(model: LoadedModel, figures: dict[str, Any] | None) -> LoadedModel:
    """The model with its large tensors in bf16 (norms and biases are 0.2 % of it and stay), and what it is."""
    kept: dict[str, Any] = {key: model.info[key] for key in ("epoch", "step") if key in model.info}
    info = {
        **kept,
        "started_from": "mask-rcnn-nano",
        "licence": LICENCE,
        "data": DATA,
        "max_dets": MAX_DETS,
        "val": figures,
    }
    state = {name: _shortened(tensor) for name, tensor in model.state.items()}
    return replace(model, state=state, info=info)


def _shortened(tensor: Tensor) -> Tensor:
    large = tensor.is_floating_point() and tensor.ndim > 1
    return tensor.to(torch.bfloat16) if large else tensor


def measured(weights: Path, data: Path, work: Path) -> dict[str, Any]:
    """Figures of a file on the validation set, as `segcli eval` gives them (in fp32).

    Returns:
        `box` and `mask` of all pictures, and `fluorescence` and `others`: pictures and mask AP of each kind.
    """
    annotations, images = data / "val.json", data / "val"
    figures = _eval(weights, annotations, images, work)
    parts = {}
    for kind, rows in by_kind(annotations, images).items():
        path = work / f"{kind}.json"
        write_bytes(path, json.dumps(rows).encode("utf-8"))
        mask = _eval(weights, path, images, work)["mask"]
        parts[kind] = {"pictures": len(rows["images"]), "mask_ap": mask["AP"]}
    return {"box": figures["box"], "mask": figures["mask"], **parts}


def _eval(weights: Path, annotations: Path, images: Path, work: Path) -> dict[str, Any]:
    scores = work / "scores"
    command = ("eval", str(annotations), "--images", str(images), "--model", str(weights))
    segcli(*command, "--max-dets", str(MAX_DETS), "--output", str(scores), "--overwrite")
    found: dict[str, Any] = json.loads((scores / "metrics.json").read_text(encoding="utf-8"))
    return found


def by_kind(annotations: Path, images: Path) -> dict[str, dict[str, Any]]:
    """The COCO file in two: fluorescence (grey and mostly dark), and all others."""
    whole = json.loads(annotations.read_text(encoding="utf-8"))
    kinds: dict[str, list[Any]] = {"fluorescence": [], "others": []}
    for image in whole["images"]:
        pixels = read_image(images / image["file_name"]).astype(np.int16)
        grey = float((pixels.max(axis=2) - pixels.min(axis=2)).mean()) < 8
        dark = float(np.median(pixels)) < 128
        kinds["fluorescence" if grey and dark else "others"].append(image)
    parts = {}
    for kind, rows in kinds.items():
        ids = {image["id"] for image in rows}
        kept = [a for a in whole["annotations"] if a["image_id"] in ids]
        parts[kind] = {**whole, "images": rows, "annotations": kept}
    return parts


def segcli(*arguments: str) -> None:
    """Run the program.

    Raises:
        ModelError: it fails; it has said why.
    """
    result = subprocess.run([sys.executable, "-m", "segcli", *arguments], check=False)
    if result.returncode:
        raise ModelError(f"segcli {arguments[0]}: exit code {result.returncode}, see above")


def recipe_of(run: Path) -> str:
    """The flags that made a run, from its settings: those that are not the defaults."""
    given, usual = configuration.load(run / configuration.FILE_NAME), to_settings(TrainConfig())
    flags = []
    for name, value in given["settings"].items():
        if name in ("workers", "device") or value == usual.get(name):
            continue
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        flags.append(f"--{name.replace('_', '-')} {text}")
    return " ".join(flags)


def card(model: LoadedModel, path: Path, recipe: str) -> str:
    """The model card of a packed file."""
    val = model.info["val"]
    rows = [
        f"| {kind} | " + " | ".join(_figure(val[kind].get(name)) for name in _SHOWN) + " |"
        for kind in ("mask", "box")
    ]
    head = "| | " + " | ".join(_SHOWN) + " |\n|---|" + "---|" * len(_SHOWN)
    values = sum(tensor.numel() for tensor in model.state.values())
    return _CARD.format(
        name=NAME,
        architecture=model.spec.architecture,
        megabytes=f"{path.stat().st_size / 1e6:.1f}",
        values=f"{values / 1e6:.1f}",
        sha256=sha256(path),
        licence=LICENCE,
        data=DATA,
        max_dets=MAX_DETS,
        step=model.info.get("step", "?"),
        recipe=recipe,
        metrics="\n".join((head, *rows)),
        fluorescence=val["fluorescence"],
        others=val["others"],
        short=model.spec.conventions.preprocess.min_size,
        long=model.spec.conventions.preprocess.max_size,
    )


_SHOWN = ("AP", "AP50", "AP75", "APs", "APm", f"AR{MAX_DETS}")


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


_CARD = """# {name}

Finds cell nuclei in microscope pictures, each with its mask: fluorescence, and to a lesser degree stained tissue.

```sh
segcli predict folder slides --model {name} --csv --output found     # found/counts.csv: nuclei per picture
segcli train mine.json --model {name} --output run                   # a start for one's own cells
```

| | |
|---|---|
| architecture | {architecture}, {values} million values, one class: nucleus |
| file | {megabytes} MB, bf16 (norms and biases fp32); loaded as fp32. SHA-256 `{sha256}` |
| licence of the weights | {licence}, as segcli |
| data | {data} |
| training | random weights, {step} steps: `segcli train train.json --val val.json {recipe}` |
| input | shorter side {short}, longest {long} px; RGB |

## Measured

This very file, in fp32, on the 80 validation pictures (by which the best checkpoint was also chosen),
{max_dets} detections a picture:

{metrics}

`segcli eval val.json --model {name} --max-dets {max_dets}`

## Limits

- It saw 320 pictures of 256 × 256 to 360 × 360 pixels, with nuclei 7 to 53 pixels wide (nine of ten). Scale yours to
  that, or give `--min-size`; cut slides up with `--tile 360`.
- 263 of them are fluorescence, bright on dark, and only 57 stained tissue or bright field, on which it is worse.
  Mask AP on the {fluorescence[pictures]} validation pictures of the first kind: {fluorescence[mask_ap]:.3f};
  on the {others[pictures]} others: {others[mask_ap]:.3f}.
- Dense clumps are undercounted: nuclei that touch are now and then taken for one, and at most {max_dets} are kept in a
  picture or tile.
- It finds what looks like a nucleus. It is no medical device, and nothing here was validated for diagnosis.

Made by `scripts/make_nano_nuclei.py`, which trains, packs and measures it anew.
"""


def main() -> int:
    """Make the files; 1 where it cannot be done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared/data/nuclei400")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "build" / NAME)
    parser.add_argument("--run", type=Path, help="pack this RUN instead of training one")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "segcli" / "embedded")
    given = parser.parse_args()
    try:
        run = given.run or given.work / "run"
        if given.run is None:
            train(given.data, run)
        make(run, given.data, given.work, given.output)
    except SegcliError as error:
        print(f"make_nano_nuclei: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def make(run: Path, data: Path, work: Path, output: Path) -> None:
    """Pack, measure, and only then write the file that carries its own figures, and its card."""
    model = load_model(str(run))
    trial = work / "trial.safetensors"
    save_model(trial, packed(model, None))
    final = packed(model, measured(trial, data, work))
    path = output / f"{NAME}.safetensors"
    save_model(path, final)
    write_bytes(output / f"{NAME}.md", card(final, path, recipe_of(run)).encode("utf-8"))
    val = final.info["val"]
    print(
        f"{path}: {path.stat().st_size / 1e6:.1f} MB; for segcli/embedded/__init__.py: "
        f"box_ap={val['box']['AP']:.3f}, mask_ap={val['mask']['AP']:.3f}"
    )


if __name__ == "__main__":
    sys.exit(main())
