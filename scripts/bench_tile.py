"""Memory and time of one large picture in tiles: `segcli predict image --tile` in a process of its own.

python scripts/bench_tile.py [--width 12000 --height 9000] [--tile 1024] [--overlap 0.2] [--model MODEL] [--limit-gb 3]

Without --model: a nano with random weights, which finds as many objects on every tile as it may. Exit code 1 where the
peak of resident memory is beyond the limit.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from segcli.prediction.tiling import cut_into_tiles

SEED = 0
SHAPES_PER_MEGAPIXEL = 30


def make_picture(path: Path, height: int, width: int) -> None:
    """Bright ellipses, and bars that cross many tiles, on dark noise."""
    rng = np.random.default_rng(SEED)
    noise = rng.integers(0, 60, (512, 512, 3), np.uint8)
    picture = np.tile(noise, (-(-height // 512), -(-width // 512), 1))[:height, :width].copy()
    for _ in range(max(height * width * SHAPES_PER_MEGAPIXEL // 1_000_000, 1)):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        axes = (int(rng.integers(8, 90)), int(rng.integers(8, 90)))
        colour = [int(v) for v in rng.integers(120, 256, 3)]
        cv2.ellipse(picture, centre, axes, float(rng.integers(180)), 0, 360, colour, cv2.FILLED)
    for y in range(height // 8, height, height // 4):
        cv2.line(picture, (20, y), (width - 20, y + height // 10), (250, 250, 250), 40)
    if not cv2.imwrite(str(path), picture):
        raise SystemExit(f"{path}: cannot be written")


def run(arguments: list[str]) -> tuple[float, float]:
    """Seconds and peak resident memory, in 10⁹ bytes, of one start of segcli; ends this program where it fails."""
    started, peak = time.monotonic(), 0.0
    process = subprocess.Popen([sys.executable, "-m", "segcli", *arguments])
    while process.poll() is None:
        peak = max(peak, peak_gb(process.pid))
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"segcli {arguments[0]} {arguments[1]}: exit code {process.returncode}")
    return time.monotonic() - started, peak


def peak_gb(pid: int) -> float:
    """VmHWM, the peak so far as the kernel saw it (wait4 would count this program in); 0 once the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(x.split()[1]) * 1024 / 1e9 for x in lines if x.startswith("VmHWM")), 0.0)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--width", type=int, default=12_000)
    parser.add_argument("--height", type=int, default=9_000)
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--overlap", type=float, default=0.2)
    parser.add_argument("--model")
    parser.add_argument("--suffix", choices=[".jpg", ".png"], default=".jpg")
    parser.add_argument("--limit-gb", type=float, default=3.0)
    return parser.parse_args()


def main() -> int:
    """Make the picture, predict it, print the figures."""
    given = parse()
    with tempfile.TemporaryDirectory(prefix="segcli-tile-") as name:
        scratch = Path(name)
        picture = scratch / f"large{given.suffix}"
        make_picture(picture, given.height, given.width)
        model = given.model or str(scratch / "nano.safetensors")
        if given.model is None:
            random = ["mask-rcnn-nano", "--classes", "3", "--seed", str(SEED), "--output", model]
            run(["models", "init", *random])
        flags = ["--tile", str(given.tile), "--overlap", str(given.overlap), "--profile"]
        out = scratch / "out"
        seconds, peak = run(
            ["predict", "image", str(picture), "--model", model, "--output", str(out), *flags]
        )
        objects = len(json.loads((out / "predictions.json").read_bytes())["annotations"])
    tiles = len(cut_into_tiles((given.height, given.width), given.tile, given.overlap))
    print(
        f"{given.width} × {given.height} pixels, {tiles} tiles of {given.tile}: {objects} objects"
    )
    print(f"{seconds:.1f} s, {seconds / tiles * 1000:.0f} ms per tile, start and writing included")
    print(f"peak {peak:.2f} GB, allowed {given.limit_gb:.2f} GB")
    return int(peak > given.limit_gb)


if __name__ == "__main__":
    sys.exit(main())
