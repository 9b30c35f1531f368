"""The demo's last page: where everything is, opened to be sure, and a table of results.

    python scripts/show_results.py OUT

Exits with 1 if something is missing, does not open, or the mask AP is below the bar.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path

import av
import cv2
from safetensors import safe_open

from segcli.console import table

BAR = 0.50


def _weights(path: Path) -> str:
    with safe_open(path, framework="pt") as file:
        return f"{len(list(file.keys()))} tensors, {path.stat().st_size / 1e6:.1f} MB"


def _scores(path: Path) -> str:
    scores = json.loads(path.read_text())
    return f"box AP {scores['box']['AP']:.3f}, mask AP {scores['mask']['AP']:.3f}"


def _predictions(path: Path) -> str:
    found = json.loads(path.read_text())
    return f"{len(found['annotations'])} objects on {len(found['images'])} pictures"


def _pictures(path: Path) -> str:
    files = sorted(path.glob("*.png"))
    sizes = {cv2.imread(str(file), cv2.IMREAD_UNCHANGED).shape[:2] for file in files}
    if not files:
        raise FileNotFoundError(f"no pictures in {path}")
    return f"{len(files)} pictures of {', '.join(f'{h} × {w}' for h, w in sorted(sizes))}"


def _rows(path: Path) -> str:
    with path.open(newline="", encoding="utf-8") as stream:
        return f"{sum(1 for _ in csv.reader(stream)) - 1} rows"


def _video(path: Path) -> str:
    with av.open(str(path)) as container:
        count = sum(1 for _ in container.decode(video=0))
        kinds = ", ".join(stream.codec_context.name for stream in container.streams)
        return f"{count} frames; {kinds}"


WHAT: dict[str, Callable[[Path], str]] = {
    "run/best.safetensors": _weights,
    "scores/metrics.json": _scores,
    "predictions/predictions.json": _predictions,
    "predictions/overlays": _pictures,
    "predictions/masks": _pictures,
    "predictions/instances.csv": _rows,
    "predictions/counts.csv": _rows,
    "scenes_overlay.mp4": _video,
}


def main() -> int:
    """Open everything and say what it is."""
    out = Path(sys.argv[1])
    table(
        "Demo results",
        ["file", "what it holds"],
        [(out / n, check(out / n)) for n, check in WHAT.items()],
    )
    ap = json.loads((out / "scores" / "metrics.json").read_text())["mask"]["AP"]
    print(f"mask AP on the synthetic validation pictures: {ap:.3f} (bar: {BAR:.2f})")
    return 0 if ap >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
