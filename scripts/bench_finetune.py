"""Does it help to start from a model that was trained on synthetic scenes? Two curves on a small real dataset.

The dataset is cut into training and validation pictures by a fixed rule; both runs have the same steps, seed and
flags, and differ in `--model` only.

    python scripts/bench_finetune.py ../shared/data/nuts_coco/trainval.json --images ../shared/data/nuts_coco/images \
        --start RUN_ON_SCENES --steps 120
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def split(source: Path, folder: Path, validation: int) -> tuple[Path, Path]:
    """Every n-th picture by name goes to validation until there are enough."""
    table = json.loads(source.read_text())
    names = sorted(table["images"], key=lambda image: str(image["file_name"]))
    held = names[:: len(names) // validation][:validation]
    ids = {image["id"] for image in held}
    parts = []
    for name, wanted in (("train", False), ("val", True)):
        part: dict[str, Any] = {
            "images": [i for i in names if (i["id"] in ids) == wanted],
            "annotations": [a for a in table["annotations"] if (a["image_id"] in ids) == wanted],
            "categories": table["categories"],
        }
        parts.append(folder / f"{name}.json")
        parts[-1].write_text(json.dumps(part))
    return parts[0], parts[1]


def curve(model: str, run: Path, arguments: argparse.Namespace, parts: tuple[Path, Path]) -> Any:
    """Mask AP on the validation pictures by step."""
    command = [
        sys.executable, "-m", "segcli", "train", str(parts[0]), "--val", str(parts[1]),
        "--images", str(arguments.images), "--val-images", str(arguments.images),
        "--model", model, "--steps", str(arguments.steps), "--eval-every", str(arguments.every),
        "--output", str(run), "--seed", str(arguments.seed), "--batch-size", "4",
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=sys.stderr)  # stdout is for the curves
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [
        {"step": r["step"], "mask_ap": r["val"]["mask"]["AP"], "box_ap": r["val"]["box"]["AP"]}
        for r in rows
        if "val" in r
    ]


def main() -> None:
    """Print both curves as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--start", required=True, help="RUN or file of the pre-trained nano")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--every", type=int, default=8, help="epochs between evaluations")
    parser.add_argument("--validation", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        parts = split(arguments.dataset, Path(folder), arguments.validation)
        curves = {
            "from scenes": curve(arguments.start, Path(folder) / "tuned", arguments, parts),
            "random": curve("mask-rcnn-nano", Path(folder) / "random", arguments, parts),
        }
    print(json.dumps(curves, indent=1))


if __name__ == "__main__":
    main()
